/**
 * A machine given as the URL of a module. Its default export is a machine, a class of machines, or a
 * (possibly asynchronous) function that makes one. Its optional export `codec` says how commands
 * become bytes; it is a named export because both threads need it, and only one holds the machine.
 */
import { KeelsonError } from '../base/errors.js';
import { fileOf } from '../base/file-of.js';
import { msgpackCodec } from './codec.js';
import { isCodec, machineFault, NO_CODEC } from './machine-fault.js';
import type { AnyStateMachine, Codec } from './state-machine.js';

export interface LoadedMachine {
  readonly machine: AnyStateMachine;
  readonly codec: Codec<unknown>;
  /** The module exports a codec of its own. */
  readonly ownCodec: boolean;
}

/**
 * Imports the module in this thread and makes its machine.
 * @throws KeelsonError MISSING_FILE when it cannot be loaded, INVALID_ARGUMENT when it holds no
 * machine, STATE_MACHINE_FAILED when making the machine throws.
 */
export async function loadMachine(url: string): Promise<LoadedMachine> {
  const module = await importModule(url);
  const machine = await makeMachine(module.default, url);
  const own = module.codec as Codec<unknown> | undefined;
  if (own === undefined && machine.codec !== undefined) {
    const remedy = 'export it from the module as well: `export const codec = …`';
    throw invalidModule(url, `its machine has a codec that the main thread cannot see; ${remedy}`);
  }
  if (own !== undefined && !isCodec(own)) throw invalidModule(url, NO_CODEC);
  return { machine, codec: own ?? msgpackCodec, ownCodec: own !== undefined };
}

/** The codec that the module exports, for the thread that only encodes. */
export async function loadCodec(url: string): Promise<Codec<unknown>> {
  const { codec } = await importModule(url);
  return codec as Codec<unknown>;
}

/** What tells a user which file is missing, and what to do. */
export function missingFile(url: URL | string, reason: string, cause?: unknown): KeelsonError {
  const file = fileOf(url);
  return new KeelsonError(
    'KEELSON_MISSING_FILE',
    `cannot load ${file}: ${reason}. If the program is bundled, keep keelson and the module of the ` +
      'state machine out of the bundle (mark them as external), or copy the file to that place.',
    { details: { file }, cause },
  );
}

async function importModule(url: string): Promise<Readonly<Record<string, unknown>>> {
  try {
    return await import(url);
  } catch (error) {
    throw missingFile(url, error instanceof Error ? error.message : String(error), error);
  }
}

async function makeMachine(exported: unknown, url: string): Promise<AnyStateMachine> {
  let machine = exported;
  if (typeof exported === 'function') {
    try {
      machine = isClass(exported)
        ? new (exported as new () => unknown)()
        : await (exported as () => unknown)();
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      const message = `cannot make the state machine of ${fileOf(url)}: ${reason}`;
      throw new KeelsonError('KEELSON_STATE_MACHINE_FAILED', message, { cause: error });
    }
  }
  const fault = machineFault(machine);
  if (fault === undefined) return machine as AnyStateMachine;
  const forms = 'a machine, a class of machines, or a function that returns one';
  throw invalidModule(url, `its default export must be ${forms}: ${fault}`);
}

function isClass(exported: object): boolean {
  return /^class\b/.test(Function.prototype.toString.call(exported));
}

function invalidModule(url: string, what: string): KeelsonError {
  const file = fileOf(url);
  return new KeelsonError('KEELSON_INVALID_ARGUMENT', `the module ${file} is not usable: ${what}`, {
    details: { file },
  });
}
