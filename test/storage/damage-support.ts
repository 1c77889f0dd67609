/** Damage at rest: images of a disk with a bit flipped in a segment, and whether a start refuses one. */
import { KeelsonError } from '../../dist/base/errors.js';
import { SeededRandom } from '../../dist/base/random.js';
import type { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { openSmall } from './fault-rig.js';

const FOLDER = '/data/wal';

export function segmentsOf(disk: MemoryDisk): string[] {
  const names = disk.list(FOLDER).filter((name) => name.endsWith('.wal'));
  return names.map((name) => `${FOLDER}/${name}`);
}

/** Whether a start refuses the directory. */
export async function isRefused(image: MemoryDisk, seed: number): Promise<boolean> {
  try {
    // A store that is left open goes on moving entries, in the memory of the next one.
    await (await openSmall(image, { seed })).close();
    return false;
  } catch (error) {
    if (error instanceof KeelsonError && error.code === 'KEELSON_STORAGE_CORRUPT') return true;
    throw error;
  }
}

export interface FlippedBit {
  readonly image: MemoryDisk;
  readonly file: string;
  /** Seed and place, for messages. */
  readonly context: string;
}

/** Images of the disk, each with one bit flipped in every `stride` bytes of a segment, in turn. */
export function* flippedBits(
  disk: MemoryDisk,
  seed: number,
  stride: number,
): Generator<FlippedBit, void> {
  const random = new SeededRandom(seed);
  for (const file of segmentsOf(disk)) {
    const { length } = disk.readFile(file);
    for (let position = random.integer(stride); position < length; position += stride) {
      const bit = random.integer(8);
      const image = disk.imageAfterKill();
      image.damage(file, position, (bytes) => {
        bytes[0]! ^= 1 << bit;
      });
      yield { image, file, context: `seed ${seed}: bit ${bit} of byte ${position} of ${file}` };
    }
  }
}
