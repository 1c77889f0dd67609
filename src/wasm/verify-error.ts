/** Turns the codes of the verifying calls into reasons that people and programs can read. */
import { KeelsonError } from '../base/errors.js';
import { VERIFY_ERROR } from './abi.js';

export type VerifyFailure = keyof typeof VERIFY_ERROR;

const reasons: readonly VerifyFailure[] = (() => {
  const list: VerifyFailure[] = [];
  for (const [reason, code] of Object.entries(VERIFY_ERROR)) list[code] = reason as VerifyFailure;
  return list;
})();

/** The reason behind a code other than 0. */
export function verifyFailure(code: number): VerifyFailure {
  const reason = reasons[code];
  if (reason === undefined) throw new RangeError(`no such verification code: ${code}`);
  return reason;
}

/** Blocks that came from a peer did not verify. */
export function corruptBlocks(reason: VerifyFailure, group: number): KeelsonError {
  return new KeelsonError(
    'KEELSON_CORRUPT_FRAME',
    `the received entries of group ${group} are refused: ${reason}`,
    { details: { reason, group } },
  );
}
