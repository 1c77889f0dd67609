/**
 * One owner per data directory. The lock ends with its process, however that dies: it is a listening
 * socket, which the kernel closes at once, and never a PID, which says nothing in another container.
 *
 * Two locks are taken, in this order:
 *
 * 1. A name that only one process can bind: on Linux the abstract Unix socket
 *    `\0keelson-<device>-<inode>` of the directory, on Windows a named pipe. Atomic and without a file,
 *    but an abstract name is seen only within one network namespace.
 * 2. A Unix socket in the directory, `lock-<random>.sock`, which every container that mounts the
 *    directory sees. A contender listens on a socket of its own first and then probes all others: one
 *    that can be connected to is a live owner; one that refuses is dead for ever, because a name is
 *    given only to a socket that listens already and is never used twice, and is removed. Of two
 *    contenders at the same time at least one sees the other; it may be that both give up.
 *
 * Not protected: a directory shared between machines (NFS, a virtual machine's shared folder), where
 * a live owner on another kernel refuses connections; and a file system that cannot hold sockets,
 * when the two processes are in different network namespaces.
 */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  existsSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { createConnection, createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { KeelsonError } from '../base/errors.js';

/** Room in `sockaddr_un`, with its end mark, on every platform. */
const MAX_SOCKET_PATH_BYTES = 103;
const LOCK_FILE = /^lock-[0-9a-f]{24}\.sock$/;
/** What a file system answers that cannot hold sockets. */
const NO_SOCKETS_CODES: readonly string[] = ['EOPNOTSUPP', 'ENOTSUP', 'EPERM', 'ENOSYS', 'EINVAL'];

export interface DirectoryLock {
  readonly directory: string;
  release(): Promise<void>;
}

/**
 * Takes a directory, which must exist, for this process.
 * @throws KeelsonError STORAGE_LOCKED when a live process has it.
 */
export async function lockDirectory(directory: string): Promise<DirectoryLock> {
  const servers: Server[] = [];
  let lockFile: string | undefined;
  const release = async (): Promise<void> => {
    if (lockFile !== undefined) rmSync(lockFile, { force: true });
    for (const server of servers.splice(0).reverse()) await close(server);
  };
  try {
    const name = exclusiveName(directory);
    if (name !== undefined) servers.push(await listenExclusively(name, directory));
    if (process.platform !== 'win32') {
      const listening = await listenInDirectory(directory, name !== undefined);
      if (listening !== undefined) {
        servers.push(listening.server);
        lockFile = listening.path;
        await probeOthers(directory, listening.path);
      }
    }
  } catch (error) {
    await release();
    throw error;
  }
  return { directory, release };
}

function exclusiveName(directory: string): string | undefined {
  const { dev, ino } = statSync(directory, { bigint: true });
  if (process.platform === 'linux') return `\0keelson-${dev}-${ino}`;
  if (process.platform === 'win32') return `\\\\.\\pipe\\keelson-${dev}-${ino}`;
  return undefined;
}

async function listenExclusively(name: string, directory: string): Promise<Server> {
  try {
    return await listen(name);
  } catch (error) {
    if (codeOf(error) === 'EADDRINUSE') throw locked(directory, 'on this machine', error);
    throw error;
  }
}

/** Undefined when the file system holds no sockets and another lock is held already. */
async function listenInDirectory(
  directory: string,
  optional: boolean,
): Promise<{ server: Server; path: string } | undefined> {
  const id = randomBytes(12).toString('hex');
  const path = join(directory, `lock-${id}.sock`);
  const unnamed = join(directory, `lock-${id}.tmp`);
  try {
    const server = await withShortPath(directory, `lock-${id}.tmp`, listen);
    // Others see the name only now that the socket listens: refused can mean nothing but dead.
    renameSync(unnamed, path);
    return { server, path };
  } catch (error) {
    rmSync(unnamed, { force: true });
    if (optional && NO_SOCKETS_CODES.includes(codeOf(error))) return undefined;
    throw error;
  }
}

async function probeOthers(directory: string, ownPath: string): Promise<void> {
  for (const name of readdirSync(directory)) {
    const path = join(directory, name);
    if (path === ownPath || !LOCK_FILE.test(name)) continue;
    const code = await withShortPath(directory, name, probe);
    if (code === 'ECONNREFUSED') rmSync(path, { force: true });
    else if (code !== 'ENOENT') throw locked(directory, `which holds ${name} (${code})`, undefined);
  }
}

/** Resolves to the code of the error, or `connected`. */
function probe(path: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = createConnection(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve('connected');
    });
    socket.once('error', (error) => resolve(codeOf(error)));
  });
}

function listen(path: string): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy());
    server.once('error', reject);
    // In a worker of node:cluster the primary would listen otherwise, once for all workers and for ever.
    server.listen({ path, exclusive: true }, () => {
      server.off('error', reject);
      server.unref();
      resolve(server);
    });
  });
}

function close(server: Server): Promise<void> {
  return new Promise((resolve, reject) => {
    server.close((error) => (error === undefined ? resolve() : reject(error)));
  });
}

/** Socket paths are short by law; on Linux a long one is reached through a descriptor. */
async function withShortPath<T>(
  directory: string,
  name: string,
  use: (path: string) => Promise<T>,
): Promise<T> {
  const path = join(directory, name);
  if (Buffer.byteLength(path) <= MAX_SOCKET_PATH_BYTES) return await use(path);
  if (!existsSync('/proc/self/fd')) {
    throw new KeelsonError(
      'KEELSON_INVALID_ARGUMENT',
      `the path ${path} is too long for a socket (${MAX_SOCKET_PATH_BYTES} bytes): ` +
        'use a shorter data directory',
      { details: { directory } },
    );
  }
  const descriptor = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    return await use(`/proc/self/fd/${descriptor}/${name}`);
  } finally {
    closeSync(descriptor);
  }
}

function locked(directory: string, holder: string, cause: unknown): KeelsonError {
  return new KeelsonError(
    'KEELSON_STORAGE_LOCKED',
    `the data directory ${directory} is in use by another live process ${holder}: ` +
      'stop that process, or give this node a directory of its own',
    { details: { directory }, cause },
  );
}

function codeOf(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? String(error);
}
