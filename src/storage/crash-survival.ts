/**
 * What of a disk's unsynced changes is found after the power came back. Nothing that was not synced is
 * promised, and nothing forbids it to be there: a store must live with every mixture.
 *
 * | mode      | pages                          | sizes   | names                   |
 * | --------- | ------------------------------ | ------- | ----------------------- |
 * | `discard` | none                           | old     | none                    |
 * | `keep`    | all                            | new     | all                     |
 * | `reorder` | any                            | either  | any, whatever the order |
 * | `torn`    | any sectors of each            | new     | all                     |
 * | `random`  | any, some of them torn         | either  | the first few           |
 */
import { SeededRandom } from '../base/random.js';

export const CRASH_MODES = ['discard', 'keep', 'reorder', 'torn', 'random'] as const;

export type CrashMode = (typeof CRASH_MODES)[number];

/** Asked once for each thing that was not synced. */
export interface Survival {
  /** Whether a file has the size that was not synced. */
  size(): boolean;
  page(): 'lost' | 'kept' | 'torn';
  /** Whether a sector of a torn page is the new one. */
  sector(): boolean;
  /** Which of the changes of a directory's names are there. */
  names(changes: number): boolean[];
}

export function survivalOf(mode: CrashMode, seed: number): Survival {
  if (mode === 'discard') return NOTHING;
  if (mode === 'keep') return EVERYTHING;
  const random = new SeededRandom(seed);
  switch (mode) {
    case 'reorder':
      return {
        size: () => random.chance(0.5),
        page: () => (random.chance(0.5) ? 'kept' : 'lost'),
        sector: () => true,
        names: (changes) => Array.from({ length: changes }, () => random.chance(0.5)),
      };
    case 'torn': {
      const share = [0.1, 0.5, 0.9][random.integer(3)]!;
      return { ...EVERYTHING, page: () => 'torn', sector: () => random.chance(share) };
    }
    case 'random':
      return {
        size: () => random.chance(0.5),
        page: () => (random.chance(0.5) ? 'lost' : random.chance(0.25) ? 'torn' : 'kept'),
        sector: () => random.chance(0.5),
        names: (changes) => {
          // A file system that journals names in order loses the last ones.
          const survivors = random.integer(changes + 1);
          return Array.from({ length: changes }, (_, place) => place < survivors);
        },
      };
  }
}

const NOTHING: Survival = {
  size: () => false,
  page: () => 'lost',
  sector: () => false,
  names: (changes) => new Array<boolean>(changes).fill(false),
};

const EVERYTHING: Survival = {
  size: () => true,
  page: () => 'kept',
  sector: () => true,
  names: (changes) => new Array<boolean>(changes).fill(true),
};
