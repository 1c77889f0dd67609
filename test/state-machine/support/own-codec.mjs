/** Commands are numbers, as text. */
export const codec = {
  encode: (value) => Buffer.from(String(value)),
  decode: (bytes) => Number(Buffer.from(bytes).toString()),
};

export default class Sum {
  codec = codec;
  total = 40;
  apply = (entries) => entries.map(({ command }) => (this.total += command));
  query = () => this.total;
  snapshot = () => [];
  restore = () => {};
  open = () => 8;
}
