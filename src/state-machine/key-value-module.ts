/** The key-value machine as a module that a worker loads; see `keyValueModule`. */
export { KeyValueMachine as default } from './key-value.js';
