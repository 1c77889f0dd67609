/** What a store logs of its recovery. */
import type { Logger } from '../base/logger.js';
import type { RecoveredLane } from './recovery.js';

/** A whole log; perhaps without a tail that was never acknowledged. */
export function reportRecovery(
  logger: Logger,
  directory: string,
  lane: number,
  recovered: RecoveredLane,
): void {
  const { batches, entries, tornTail, start } = recovered;
  const fields = { directory, lane, batches, entries, segment: start.sequence };
  logger.info({ event: 'storage.recovered', ...fields }, 'the log was recovered');
  if (tornTail === undefined) return;
  logger.warn(
    { event: 'storage.torn-tail', ...tornTail },
    'an unreadable tail that was never acknowledged was cut off',
  );
}

/** One that was opened in the mode `repair` and has lost something. */
export function reportLosses(logger: Logger, directory: string, recovered: RecoveredLane): void {
  const { losses, lost } = recovered;
  for (const { message, details } of losses) {
    logger.error({ event: 'storage.damaged', ...details }, message);
  }
  const groups = lost.filter(({ ranges, voteInDoubt }) => ranges.length > 0 || voteInDoubt);
  const text = 'the log has lost data: what is left can be read, and nothing is written';
  logger.error({ event: 'storage.read-only', directory, groups }, text);
}
