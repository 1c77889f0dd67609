import type { StateMachine } from '../../../dist/state-machine/state-machine.js';

export default class Snapshotter implements StateMachine<unknown, unknown, unknown, unknown> {
  apply: StateMachine['apply'];
  query: StateMachine['query'];
  snapshot: StateMachine['snapshot'];
  restore: StateMachine['restore'];
}
