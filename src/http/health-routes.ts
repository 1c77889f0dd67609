/**
 * What probes and people ask. None of these asks another node, so they answer at once and without a
 * quorum: a cluster that has lost its majority must not have its live nodes restarted.
 *
 *     /livez   the process answers
 *     /readyz  this node can be sent clients: it runs, its log is whole, it knows a leader, and has applied
 *              what it knows to be committed, up to a small lag
 */
import type { LogDamage, Status } from '../api.js';
import type { KeelsonError } from '../base/errors.js';
import { HttpFailure, RETRY_AFTER } from './errors.js';
import { type Answer, failureAnswer, jsonAnswer } from './reply.js';

export function livez(): Answer {
  return jsonAnswer(200, { live: true });
}

interface Check {
  readonly name: string;
  readonly ok: boolean;
  readonly message: string;
}

export function readyz(status: Status, verbose: boolean, maxLagEntries: number): Answer {
  const checks = readinessChecks(status, maxLagEntries);
  const failed = checks.filter((check) => !check.ok);
  if (failed.length === 0) return jsonAnswer(200, { ready: true, ...(verbose ? { checks } : {}) });
  const message = failed.map((check) => check.message).join('; ');
  return failureAnswer(
    new HttpFailure(503, 'KEELSON_NOT_READY', message, {
      headers: RETRY_AFTER,
      fields: verbose ? { checks } : {},
    }),
  );
}

function readinessChecks(status: Status, maxLagEntries: number): Check[] {
  const lagEntries = status.committedIndex - status.appliedIndex;
  const running = status.state !== 'stopped';
  return [
    {
      name: 'running',
      ok: running,
      message: running
        ? `running as ${status.state}`
        : `stopped: ${status.failure?.message ?? 'closed'}`,
    },
    {
      name: 'log',
      ok: status.damage === undefined,
      message: status.damage?.error.message ?? 'nothing is lost of the log',
    },
    {
      name: 'leader',
      ok: status.leader !== undefined,
      message: status.leader === undefined ? 'no leader is known' : `node ${status.leader} leads`,
    },
    {
      name: 'applied',
      ok: lagEntries <= maxLagEntries,
      message: `applied ${status.appliedIndex} of ${status.committedIndex} committed entries`,
    },
  ];
}

export function statusRoute(status: Status): Answer {
  const { failure, damage } = status;
  return jsonAnswer(200, {
    ...status,
    leader: status.leader ?? null,
    leaderAddress: status.leaderAddress ?? null,
    snapshotReceived: status.snapshotReceived ?? null,
    failure: failure === undefined ? null : described(failure),
    damage: damage === undefined ? null : describedDamage(damage),
  });
}

function describedDamage({ error, ranges, ...rest }: LogDamage): object {
  const lost = ranges.map(({ firstIndex, lastIndex = null }) => ({ firstIndex, lastIndex }));
  return { ...rest, ranges: lost, error: described(error) };
}

function described({ code, message }: KeelsonError): object {
  return { code, message };
}
