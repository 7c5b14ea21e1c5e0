// Package disk writes files and creates folders so that they survive a power cut, and reads large files without filling the
// page cache.
//
// A file that [WriteSynced] made is durable once [SyncFolder] has synced its folder. Two functions avoid slowing down the
// database on the same machine: [ReadPastCache] reads a large file by direct I/O, and [WithIdlePriority] does slow work on a
// thread of the lowest priority. [NewLineScanner] reads a large file line by line. [AddMode] restores a permission that
// somebody has removed from a file.
package disk
