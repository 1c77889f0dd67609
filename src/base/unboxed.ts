/**
 * The same number, whole if it is small. V8 keeps what was read as a float in a box of its own, once more for each
 * object that takes it on, although most indexes and terms would fit where the pointer to the box stands.
 */
export function unboxed(value: number): number {
  const whole = value | 0;
  return whole === value ? whole : value;
}
