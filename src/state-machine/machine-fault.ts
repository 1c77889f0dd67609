/** What an application brings as its machine is looked at once, before it is given anything. */
import { KeelsonError } from '../base/errors.js';
import type { AnyStateMachine } from './state-machine.js';

/** Why this is no machine that can be used; undefined if it is one. */
export function machineFault(machine: unknown): string | undefined {
  const found = machine as Partial<AnyStateMachine> | null | undefined;
  if (typeof found?.apply !== 'function' || typeof found.query !== 'function') {
    return 'an object with the methods apply and query is needed';
  }
  if (typeof found.snapshot !== 'function' || typeof found.restore !== 'function') {
    return 'it must have the methods snapshot and restore';
  }
  const { codec, version } = found;
  if (codec !== undefined && !isCodec(codec)) return NO_CODEC;
  // Peers tell one another their versions in the handshake, which carries nothing else.
  if (version !== undefined && !(Number.isSafeInteger(version) && version > 0)) {
    return `its version must be a whole number from 1 on, not ${String(version)}`;
  }
  return undefined;
}

export const NO_CODEC = 'its codec must have the methods encode and decode';

export function isCodec(codec: unknown): codec is NonNullable<AnyStateMachine['codec']> {
  const found = codec as AnyStateMachine['codec'] | null;
  return typeof found?.encode === 'function' && typeof found.decode === 'function';
}

/** What is thrown where a machine threw outside of `apply` and `query`. */
export function machineThrew(
  step: 'open' | 'close' | 'snapshot' | 'restore',
  error: unknown,
): KeelsonError {
  if (error instanceof KeelsonError) return error;
  const reason = error instanceof Error ? error.message : String(error);
  const message = `${step} of the state machine threw: ${reason}`;
  return new KeelsonError('KEELSON_STATE_MACHINE_FAILED', message, { cause: error });
}
