// A follower as an application in Node.js would have it: it drains a slot of pgoutput by the package
// pg-logical-replication, makes JSON of every row, keeps nothing, and says how many rows and characters there were.
// BenchmarkStream runs it: node follower.mjs URL SLOT PUBLICATION LSN, where the LSN is the position to stop at.
import { LogicalReplicationService, PgoutputPlugin } from 'pg-logical-replication';

const [url, slot, publication, until] = process.argv.slice(2);

function position(lsn) {
	const [high, low] = lsn.split('/').map((half) => BigInt(`0x${half}`));
	return (high << 32n) | low;
}

// The package's own default, to acknowledge each message, would only make it slower: it tells the server where it is
// every ten seconds instead, as pg_recvlogical does.
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
service.on('heartbeat', stopAt); // the server sends one when it has nothing left
service.on('error', (error) => {
	console.error(error);
	process.exit(1);
});

await service.subscribe(new PgoutputPlugin({ protoVersion: 1, publicationNames: [publication] }), slot);
if (!service.isStop()) {
	console.error(`the stream ended before ${until}`);
	process.exit(1);
}
