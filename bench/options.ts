/** Reads a number from the command line; what is out of range ends the program with its usage. */
export function numberOption(name: string, text: string, least: number, most: number): number {
  const value = Number(text);
  if (text.trim() !== '' && value >= least && value <= most) return value;
  throw new RangeError(`--${name} must be between ${least} and ${most}, not ${text}`);
}

/** The same, without a fraction. */
export function integerOption(name: string, text: string, least: number, most: number): number {
  const value = numberOption(name, text, least, most);
  if (Number.isInteger(value)) return value;
  throw new RangeError(`--${name} must be a whole number, not ${text}`);
}

/** The same for a number of bytes, with `k`, `m` or `g` behind it for KiB, MiB and GiB. */
export function bytesOption(name: string, text: string, least: number, most: number): number {
  const unit = { k: 1024, m: 1024 ** 2, g: 1024 ** 3 }[text.slice(-1).toLowerCase()];
  const number = unit === undefined ? text : text.slice(0, -1);
  const value = number.trim() === '' ? Number.NaN : Number(number) * (unit ?? 1);
  if (Number.isInteger(value) && value >= least && value <= most) return value;
  throw new RangeError(
    `--${name} must be ${least} to ${most} bytes, as 1048576 or 1m, not ${text}`,
  );
}
