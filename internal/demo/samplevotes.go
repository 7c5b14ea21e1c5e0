package demo

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// This file contains the questions of the demo's users, the answers of the chat, and the users' ratings.

// vote is a row of the votes table without its key and time.
type vote struct {
	question, answer, citations string
	opinion
}

// opinion is a user's rating of an answer.
type opinion struct {
	good       bool
	tags       []string
	comment    *string // nil if the user wrote none
	evaluation string  // JSON of the automatic evaluation
}

func (o opinion) thumb() string {
	if o.good {
		return "👍"
	}
	return "👎"
}

// topic is a question with its answer. In both texts, %s stands for the name of a service.
type topic struct {
	question, answer string
	services         []string
	page             string // documentation page that the answer cites
}

var topics = []topic{
	{"How do I rotate keys for %s without downtime?",
		"Every account has **two keys**, so one is always valid:\n\n1. Point your application at the *second* key.\n2. Regenerate the first: `az storage account keys renew --key key1`.\n3. Point it back, and regenerate the second.\n\n> Better still: use a managed identity for %s, and there is no key to rotate.",
		[]string{"Azure Storage", "Azure AI Search", "Cosmos DB"}, "key-rotation"},
	{"Why does %s answer 429, and how should I retry?",
		"`429 Too Many Requests` means that %s throttles you. Honor the `Retry-After` header, and back off exponentially:\n\n```python\nfor attempt in range(6):\n    try:\n        return call()\n    except RateLimitError as e:\n        sleep(e.retry_after or 2 ** attempt + random())\n```\n\nIf it stays, raise the quota of the deployment.",
		[]string{"Azure OpenAI", "Azure AI Search", "Microsoft Graph"}, "throttling"},
	{"What chunk size works best when I index PDFs into %s?",
		"There is no single best size, but **512 tokens with 25 % overlap** is a good start for %s.\n\n| documents | tokens | overlap |\n|---|---|---|\n| manuals | 512 | 128 |\n| contracts | 1024 | 200 |\n| FAQ | 256 | 0 |\n\nMeasure recall on your own questions before you tune further.",
		[]string{"Azure AI Search", "Elasticsearch", "pgvector"}, "chunking"},
	{"How can %s reach a database in a private network?",
		"Give %s *outbound* access to the virtual network:\n\n- a delegated subnet for VNet integration,\n- a **private endpoint** for the database,\n- a private DNS zone `privatelink.postgres.database.azure.com` that is linked to the network.\n\nCheck with `nameresolver` that the name resolves to a 10.x address.",
		[]string{"App Service", "Azure Functions", "Container Apps"}, "private-endpoints"},
	{"Can I restore %s to a point in time?",
		"Yes. %s keeps backups for 7 days, 35 at most:\n\n```sh\naz postgres flexible-server restore \\\n  --name app-restored --source-server app \\\n  --restore-time \"2025-06-17T16:58:00Z\"\n```\n\nThe restore makes a **new** server; switch the connection string over when you have looked at it.",
		[]string{"Azure Database for PostgreSQL", "Azure SQL", "Cosmos DB"}, "point-in-time-restore"},
	{"What does %s cost when nobody uses it?",
		"That depends on the plan. With *consumption* pricing, %s costs nothing while idle, but the first request then waits for a cold start of some seconds. A plan with one always-ready instance costs about €0.09 an hour.",
		[]string{"Azure Functions", "Container Apps", "Azure SQL serverless"}, "pricing"},
	{"How do I stream tokens from %s to the browser?",
		"Set `stream=True` and pass the events on as they come:\n\n```python\nasync for event in client.stream(messages):\n    yield f\"data: {event.delta}\\n\\n\"\n```\n\nTurn response buffering off in the proxy, or %s seems slow although it is not.",
		[]string{"Azure OpenAI", "the Assistants API"}, "streaming"},
	{"Which role does an app need to read secrets from %s?",
		"`Key Vault Secrets User` is enough to *read*; don't hand out `Administrator`. Assign it to the app's managed identity, on the one vault that %s is:\n\n`az role assignment create --role \"Key Vault Secrets User\" --assignee $APP_ID --scope $VAULT_ID`",
		[]string{"Key Vault", "a Key Vault in another tenant"}, "rbac-guide"},
	{"Welche Regionen bieten %s mit Verfügbarkeitszonen?",
		"In Europa: *Germany West Central*, *West Europe*, *North Europe*, *Sweden Central* und *Switzerland North*. Für %s gilt das ohne Aufpreis; die Latenz zwischen den Zonen liegt unter 2 ms.",
		[]string{"AKS", "Azure OpenAI", "Azure Database for PostgreSQL"}, "availability-zones"},
	{"Is there an SLA for %s in preview?",
		"No. Previews come *as is*, **without an SLA**, and %s may change or go before it becomes generally available. Don't run production on it.",
		[]string{"vector search in Cosmos DB", "GPT-4o realtime", "confidential containers"}, "preview-terms"},
	{"How do I see what %s really sends to the model?",
		"Turn on tracing: set `LOG_LEVEL=debug`, and export to Application Insights. Each request of %s then shows the prompt, the retrieved chunks with their scores, and token counts.\n\n⚠️ Prompts hold personal data, so limit who can read the workspace.",
		[]string{"Prompt flow", "Semantic Kernel", "LangChain"}, "tracing"},
	{"Terraform wants to replace my %s on every plan. Why?",
		"Something outside Terraform changes an attribute that *forces replacement*. Look for `# forces replacement` in the plan of %s; mostly it is `name`, `location` or a defaulted `zone`:\n\n```hcl\nlifecycle {\n  ignore_changes = [zone]\n}\n```",
		[]string{"PostgreSQL server", "AKS node pool", "App Service plan"}, "terraform-drift"},
}

var (
	goodTags = []string{"Looks Good / Accurate & Clear", "Well Cited", "Right Level of Detail", "Fast"}
	badTags  = []string{"Incorrect", "Incomplete", "Irrelevant Citations", "Unclear", "Out of Date"}

	goodComments = []string{
		"Exactly what I needed, thanks!", "Saved me an hour of reading 🙏", "The table is perfect.",
		"Clear, and the link goes to the right section.", "Worked the first time.",
	}
	badComments = []string{
		"The command doesn't exist in CLI 2.60 any more.", "It answers for Azure SQL, I asked about PostgreSQL.",
		"The second citation is about \"Classic\" resources, which are retired.", "Too long; the answer is in the last line.",
		"Stimmt so nicht: in Zürich gibt es das noch nicht.", "Half of the answer is missing\n(ends in the middle of a sentence).",
	}
)

func newVote(rng *rand.Rand) vote {
	t := topics[rng.IntN(len(topics))]
	service := pickOne(rng, t.services)
	section := strings.ToLower(strings.ReplaceAll(service, " ", "-"))
	citations := fmt.Sprintf(`[{"title": %q, "url": "https://learn.example/azure/%s/%s", "chunk": %d, "score": %.4f}`,
		service+" documentation", section, t.page, rng.IntN(40), 0.75+rng.Float64()/4)
	if rng.IntN(2) == 0 {
		citations += fmt.Sprintf(`, {"title": "Troubleshooting", "url": "https://learn.example/azure/%s/faq", "chunk": %d, "score": %.4f}`,
			section, rng.IntN(12), 0.5+rng.Float64()/4)
	}
	return vote{
		question:  strings.ReplaceAll(t.question, "%s", service),
		answer:    strings.ReplaceAll(t.answer, "%s", service),
		citations: citations + "]",
		opinion:   newOpinion(rng),
	}
}

func newOpinion(rng *rand.Rand) opinion {
	o := opinion{good: rng.Float64() < 0.7}
	tags, comments, level := badTags, badComments, 1
	if o.good {
		tags, comments, level = goodTags, goodComments, 4
	}
	o.tags = []string{pickOne(rng, tags)}
	if other := pickOne(rng, tags); other != o.tags[0] && rng.IntN(3) == 0 {
		o.tags = append(o.tags, other)
	}
	if rng.IntN(5) < 2 {
		comment := pickOne(rng, comments)
		o.comment = &comment
	}
	o.evaluation = fmt.Sprintf(`{"helpful": %t, "relevance": %d, "groundedness": %.2f, "model": "gpt-4o", "latency_ms": %d}`,
		o.good, level+rng.IntN(2), float64(level)/5+rng.Float64()/5, 400+rng.IntN(5600))
	return o
}

func pickOne(rng *rand.Rand, from []string) string { return from[rng.IntN(len(from))] }
