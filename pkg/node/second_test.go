package node_test

import (
	"encoding/json"
	"slices"
	"testing"

	mcpgo "github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/client/transport"
	"github.com/mark3labs/mcp-go/mcp"
	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/node"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// Another implementation of the protocol, by others, finds what ours offers.
func TestASecondImplementationOfTheProtocolIsServed(t *testing.T) {
	store := newStore(t, "local/a")
	deploy := record(t, store, receipt.Deploy, "app-v1", anyMap{"component": "app", "version": "v1"})
	url := start(t, node.Options{Store: store, Tokens: []node.Token{tokenOf(t, "scribe", node.Read, node.Record)}})
	c, err := mcpgo.NewStreamableHttpClient(url+node.MCPPath, transport.WithHTTPHeaders(map[string]string{"Authorization": "Bearer " + secretOf("scribe")}))
	assert.NilError(t, err)
	defer c.Close()
	assert.NilError(t, c.Start(t.Context()))
	hello, err := c.Initialize(t.Context(), mcp.InitializeRequest{Params: mcp.InitializeParams{
		ProtocolVersion: mcp.LATEST_PROTOCOL_VERSION, ClientInfo: mcp.Implementation{Name: "other", Version: "1"},
	}})
	assert.NilError(t, err)
	assert.Equal(t, hello.ServerInfo.Name, "remembrancer")
	call := func(name string, args, out any) {
		t.Helper()
		r, err := c.CallTool(t.Context(), mcp.CallToolRequest{Params: mcp.CallToolParams{Name: name, Arguments: args}})
		assert.NilError(t, err)
		assert.Assert(t, !r.IsError, "%v", r.Content)
		b, err := json.Marshal(r.StructuredContent)
		assert.NilError(t, err)
		assert.NilError(t, json.Unmarshal(b, out))
	}
	var health anyMap
	call("health", nil, &health)
	assert.Equal(t, health["service"], "Remembrancer MCP")
	var made recorded
	call("record_decision", anyMap{"title": "Use two implementations", "body": "One would agree with itself.", "tags": []string{"test"}, "sign": true}, &made)
	assert.Equal(t, made.Recorded.Index, int64(1))
	var list listed
	call("list_memory_ids", anyMap{"limit": 10}, &list)
	want := []string{deploy.ID().String(), made.Recorded.ID}
	slices.Sort(want)
	assert.DeepEqual(t, list.IDs, want)
	var memory got
	call("get_memory", anyMap{"memory_id": made.Recorded.ID}, &memory)
	assert.Equal(t, memory.Memory["data"].(anyMap)["decision"], "One would agree with itself.")

	tools, err := c.ListTools(t.Context(), mcp.ListToolsRequest{})
	assert.NilError(t, err)
	assert.Assert(t, len(tools.Tools) >= len(alwaysOffered)+12)
	resource, err := c.ReadResource(t.Context(), mcp.ReadResourceRequest{Params: mcp.ReadResourceParams{URI: "memory://local/" + made.Recorded.ID}})
	assert.NilError(t, err)
	assert.Equal(t, len(resource.Contents), 1)
	prompt, err := c.GetPrompt(t.Context(), mcp.GetPromptRequest{Params: mcp.GetPromptParams{Name: "adr_template", Arguments: map[string]string{"title": "x"}}})
	assert.NilError(t, err)
	assert.Equal(t, len(prompt.Messages), 1)
}
