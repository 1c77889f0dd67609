/**
 * Exit codes and the error that means "called wrongly".
 *
 *     0  done
 *     1  failed
 *     2  called wrongly; nothing was started
 */
export const EXIT_DONE = 0;
export const EXIT_FAILED = 1;
export const EXIT_USAGE = 2;

export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** What `main.ts` calls: everything after the command's name, and the environment. */
export type Command = (args: readonly string[], environment: NodeJS.ProcessEnv) => Promise<number>;
