// Follows a table with the package pg-logical-replication, for BenchmarkStream. It drains a pgoutput slot, encodes every row
// as JSON, discards it, and prints the number of rows and characters. It stops at LSN.
//
//	node follower.mjs URL SLOT PUBLICATION LSN
import { LogicalReplicationService, PgoutputPlugin } from 'pg-logical-replication';

const [url, slot, publication, until] = process.argv.slice(2);

function position(lsn) {
	const [high, low] = lsn.split('/').map((half) => BigInt(`0x${half}`));
	return (high << 32n) | low;
}

// The package's default is to acknowledge each message, which would be slower. Every ten seconds, as in pg_recvlogical, is
// enough.
const service = new LogicalReplicationService(
	{ connectionString: url },
	{ acknowledge: { auto: false, timeoutSeconds: 10 } },
);
const target = position(until);
let rows = 0;
let characters = 0;

async function stopAt(lsn) {
	if (service.isStop() || position(lsn) < target) return;
	await service.stop();
	console.log(rows, characters);
	process.exit(0);
}

service.on('data', (lsn, change) => {
	const row = change.new ?? change.old ?? change.key;
	if (row) {
		rows++;
		characters += JSON.stringify(row).length;
	} else if (change.tag === 'commit') {
		stopAt(lsn);
	}
});
service.on('heartbeat', stopAt); // sent when the server has nothing else to send
service.on('error', (error) => {
	console.error(error);
	process.exit(1);
});

await service.subscribe(new PgoutputPlugin({ protoVersion: 1, publicationNames: [publication] }), slot);
if (!service.isStop()) {
	console.error(`the stream ended before ${until}`);
	process.exit(1);
}
