// Package kept keeps earlier states of feedback.json in the same folder, so that the rows are still there after the table has
// lost them.
//
// [States] belongs to the process that writes the file: it keeps, compresses and drops states. Any process may list the states
// with [List], and acknowledge or drop a state, without a lock. [OpenLosses] decides what people are told about losses.
//
// A state is kept in two steps. The first step takes place before a Write replaces the file, and takes milliseconds:
// [States.Keep] writes the manifest of the state, and gives the current file a second name. The second step,
// [States.Compress], follows later and may run during Writes. A crash after an action leaves:
//
//	manifest written                a manifest without data, which [Open] removes
//	second name, folder synced      a complete, uncompressed (plain) state, which is compressed after the next start
//	compressed, manifest renamed    the plain state, and a manifest that the next Compress replaces
//	compressed data renamed         the state both plain and compressed; Open removes the plain files
//
// capture never patches a file with two names (see canReplace in package store), so the kept state does not change.
package kept
