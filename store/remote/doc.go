// Package remote keeps copies of feedback.json in object storage: Azure Blob Storage, S3 and services that are compatible with
// it, or a folder on another disk.
//
// [Open] returns the [Location] that a URL names. Below a location, each database cluster has a folder of its own, which is
// named after the cluster's system identifier. A folder has these objects:
//
//	feedback-TIME-LSN-ROWS.json.gz             a state, as gzip; TIME is UTC, LSN has 16 hexadecimal digits
//	feedback-TIME-LSN-ROWS-loss.json.gz        the state before a loss of rows
//	feedback-TIME-….manifest.json              the manifest of a state of either kind
//	feedback-TIME-…-loss.acknowledged          means that the loss is acknowledged or has ended
//	latest.json                                names the newest state
//	probe                                      is what [Folder.Probe] writes
//
// States never change. A state exists once its data and its manifest exist, and [Folder.Upload] writes the manifest after the
// data. So a reader never sees part of a state, and whoever lists the folder can find the newest state without latest.json.
//
// Several captures may share a folder. A state is created only if its name is free. latest.json is replaced by a conditional
// write, which fails if another capture has replaced it meanwhile. If latest.json names a newer state than the one that a
// capture has uploaded, this capture does not replace it. So a capture that was paused for a while cannot put an old state
// over a new one.
//
// The files of the package:
//
//	location.go    URLs and credentials; errors.go explains failures and removes secrets
//	service.go     the operations that a service must have; azure.go, s3.go and localfolder.go implement it
//	transport.go   connections that do not hang, and the service's clock
//	state.go       names of states, lists of them, and which state is the newest
//	upload.go      a state is compressed and uploaded in parts
//	latest.go      latest.json
//	probe.go       what the service can do, and what it permits
//	download.go    a state is downloaded, and compared with its manifest
//	prune.go       old states, and what crashes have left, are removed
package remote
