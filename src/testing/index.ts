/** Helpers for the tests of applications that embed Keelson. */
export { TestCluster, type TestClusterOptions, testCluster } from './test-cluster.js';
