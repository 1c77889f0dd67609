import type { StateMachine } from '../../../dist/state-machine/state-machine.js';

export default class Recorder implements StateMachine<unknown, unknown, unknown, unknown> {
  calls: number;
  closed: number;
  entries: unknown[];
  apply: StateMachine['apply'];
  query: StateMachine['query'];
  snapshot: StateMachine['snapshot'];
  restore: StateMachine['restore'];
}
