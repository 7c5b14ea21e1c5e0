package postgres

import (
	"strings"
	"testing"
)

func TestObjectNames(t *testing.T) {
	t.Parallel()
	seen := map[string]Name{}
	for _, n := range []Name{{Schema: "public", Table: "votes"}, {Schema: "public", Table: "Votes"}, {Schema: "app", Table: "votes"}, {Schema: "public", Table: "app__votes"},
		{Schema: "public", Table: "app_votes"}, {Schema: "app_", Table: "votes"}, {Schema: "app", Table: "_votes"}, {Schema: "public", Table: "größe"}, {Schema: "public", Table: "gr__e"},
		{Schema: "public", Table: strings.Repeat("x", 63)}, {Schema: "public", Table: strings.Repeat("x", 62) + "y"}} {
		name := objectName(n)
		if other, ok := seen[name]; ok || len(name) > maxNameBytes {
			t.Errorf("%s is named %s, like %s", n, name, other)
		}
		seen[name] = n
	}
	if seen["capture_votes"].Table != "votes" || seen["capture_app__votes"].Schema != "app" {
		t.Errorf("names are %v", seen)
	}
}
