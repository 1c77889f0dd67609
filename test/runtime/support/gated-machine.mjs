// A state machine that blocks its thread at its first command until the test opens the gate.
import { getEnvironmentData } from 'node:worker_threads';

/** Words: 0 the machine has begun, 1 the gate is open, 2 the machine is through. */
const words = new Int32Array(getEnvironmentData('keelson-gate'));

function set(word) {
  Atomics.store(words, word, 1);
  Atomics.notify(words, word);
}

export default class Gated {
  applied = 0;

  apply(entries) {
    return entries.map(() => {
      if (this.applied++ === 0) {
        set(0);
        Atomics.wait(words, 1, 0);
        set(2);
      }
      return this.applied;
    });
  }

  query() {
    return this.applied;
  }

  *snapshot() {}

  restore() {}
}
