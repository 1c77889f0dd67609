// A storage worker that cannot be loaded, as a bundler may leave it.
import './there-is-no-such-file.js';

export default function run() {}
