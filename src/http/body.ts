/**
 * Reads a request body into one buffer. Bounded twice: each body by `maxBodyBytes`, and the bodies
 * of all requests together by a budget.
 */
import type { IncomingMessage } from 'node:http';
import { KeelsonError } from '../base/errors.js';
import type { ByteBudget } from './byte-budget.js';
import { HttpFailure } from './errors.js';

/** What was read, and how much of the budget it holds until `release` is called. */
export interface Body {
  readonly bytes: Uint8Array;
  release(): void;
}

export async function readBody(
  request: IncomingMessage,
  maxBodyBytes: number,
  budget: ByteBudget,
): Promise<Body> {
  const declaredBytes = Number(request.headers['content-length'] ?? 0);
  if (declaredBytes > maxBodyBytes) throw tooLarge(maxBodyBytes);
  let takenBytes = 0;
  const take = (bytes: number): void => {
    if (takenBytes + bytes > maxBodyBytes) throw tooLarge(maxBodyBytes);
    budget.take(bytes);
    takenBytes += bytes;
  };
  const release = (): void => {
    budget.giveBack(takenBytes);
    takenBytes = 0;
  };
  try {
    return { bytes: await collect(request, take), release };
  } catch (error) {
    release();
    throw error;
  }
}

function collect(request: IncomingMessage, take: (bytes: number) => void): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    const settle = (finish: () => void): void => {
      request.off('data', onData).off('end', onEnd).off('close', onClose);
      finish();
    };
    const onData = (chunk: Buffer): void => {
      try {
        take(chunk.length);
        chunks.push(chunk);
      } catch (error) {
        settle(() => reject(error));
      }
    };
    const onEnd = (): void =>
      settle(() => resolve(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)));
    const onClose = (): void =>
      settle(() =>
        reject(new KeelsonError('KEELSON_ABORTED', 'the client closed before its body had ended')),
      );
    request.on('data', onData).on('end', onEnd).on('close', onClose);
    // A reset in the middle is also reported here; `close` always follows and settles.
    request.on('error', onClose);
  });
}

function tooLarge(maxBodyBytes: number): HttpFailure {
  return new HttpFailure(
    413,
    'KEELSON_BODY_TOO_LARGE',
    `the body is larger than ${maxBodyBytes} bytes`,
  );
}

/**
 * After a refusal: swallows what the client still sends, so that it gets to read the answer instead
 * of a reset, but not for ever.
 */
export function discardRest(request: IncomingMessage, maxBytes: number): void {
  if (request.complete) return;
  let discardedBytes = 0;
  request.on('data', (chunk: Buffer) => {
    discardedBytes += chunk.length;
    if (discardedBytes > maxBytes) request.destroy();
  });
}
