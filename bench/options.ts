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
