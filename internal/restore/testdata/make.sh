#!/bin/sh
# Makes the files of other programs from votes.json: sh make.sh. It needs jq, node, zstd, gzip, iconv, and python3 with pandas.
set -eu
cd "$(dirname "$0")"
jq . votes.json > jq.json
jq -S . votes.json > jq-sorted.json
jq -c '.[]' votes.json > jq-lines.jsonl
jq '.[]' votes.json > jq-indented-lines.json
jq -c '.[]' votes.json | sed 's/$/\r/' > crlf.ndjson
node -e 'const rows = JSON.parse(fs.readFileSync("votes.json")); fs.writeFileSync("node.json", JSON.stringify(rows, null, 2))'
${PYTHON:-python3} - <<'PYTHON'
import json
import pandas as pd
rows = json.load(open("votes.json"))
json.dump(rows, open("python.json", "w"), indent=4)
with open("python.jsonl", "w") as f:
    for row in rows:
        f.write(json.dumps(row) + "\n")
frame = pd.DataFrame(rows)
frame["timestamp"] = pd.to_datetime(frame["timestamp"])
frame.to_json("pandas.json", orient="records")
frame.to_json("pandas.jsonl", orient="records", lines=True, date_format="iso", force_ascii=False)
frame["vote_id"] = frame["vote_id"].astype(float)
frame.to_json("pandas-float.json", orient="records", date_unit="s")
frame.to_json("pandas-columns.json")
# Spark's DataFrameWriter.json and serde's skip_serializing_if leave out what is null.
with open("spark.json", "w") as f:
    for row in rows:
        f.write(json.dumps({k: v for k, v in row.items() if v is not None}, ensure_ascii=False, separators=(",", ":")) + "\n")
PYTHON
zstd -q -f -19 jq-lines.jsonl -o lines.jsonl.zst
gzip -9 -n -c votes.json > votes-copy.json.gz
# Windows PowerShell 5.1: ConvertFrom-Json | ConvertTo-Json -Depth 9 | Out-File. It indents by four, escapes ' < > & and writes UTF-16.
jq --indent 4 . votes.json | sed "s/'/\\\\u0027/g; s/</\\\\u003c/g; s/>/\\\\u003e/g; s/&/\\\\u0026/g; s/\"2025-06-17T16:58:00\"/\"\\\\\\/Date(1750179480000)\\\\\\/\"/" |
	sed 's/$/\r/' | iconv -f UTF-8 -t UTF-16LE | (printf '\377\376'; cat) > powershell.json
# One row is an object, not an array of one.
jq --indent 4 '.[0]' votes.json | sed 's/$/\r/' | iconv -f UTF-8 -t UTF-16LE | (printf '\377\376'; cat) > powershell-one.json
