export default function make() {
  throw new Error('no room for a machine');
}
