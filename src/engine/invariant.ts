/** A broken invariant of the consensus algorithm: always a bug in Keelson, never what the world did. */
export class InvariantError extends Error {
  override readonly name = 'InvariantError';
}

/** The two numbers are what was compared; they are formatted only when the invariant is broken. */
export function invariant(
  condition: boolean,
  message: string,
  left?: number,
  right?: number,
): asserts condition {
  if (!condition) broken(message, left, right);
}

/** Apart, so that what is compiled into hot code is one branch: the numbers were made text there whatever came. */
function broken(message: string, left: number | undefined, right: number | undefined): never {
  const detail =
    left === undefined ? '' : right === undefined ? ` (${left})` : ` (${left}, ${right})`;
  throw new InvariantError(`invariant broken: ${message}${detail}`);
}
