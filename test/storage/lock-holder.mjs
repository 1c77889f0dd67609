// Takes the lock of the directory given, says so, and lives until it is killed.
import { lockDirectory } from '../../dist/storage/directory-lock.js';

await lockDirectory(process.argv[2]);
process.stdout.write('locked\n');
setInterval(() => {}, 1 << 30);
