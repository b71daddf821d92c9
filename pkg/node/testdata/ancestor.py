"""A client such as the ancestor's: it asks a node for its memories with bare
JSON-RPC, and prints what it took them for. Standard library only.

usage: ancestor.py URL
"""

import json
import sys
import urllib.request


def tool(url, name, arguments):
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}}
    request = urllib.request.Request(url, data=json.dumps(call).encode("utf-8"), headers={"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=15) as response:
            answer = json.loads(response.read().decode("utf-8"))
    except OSError as e:
        return {"ok": False, "error": str(e)}
    if "result" not in answer:
        return answer
    result = answer["result"]
    if isinstance(result, dict) and "content" in result:
        content = result["content"]
        return content[0] if isinstance(content, list) else content
    return result


def main(url):
    print("health", tool(url, "health", {}).get("ok"))
    listed = tool(url, "list_memory_ids", {})
    if not listed.get("ok"):
        print("remote error:", json.dumps(listed, sort_keys=True))
        return 2
    for memory_id in listed.get("ids", []):
        got = tool(url, "get_memory", {"memory_id": memory_id})
        if got.get("ok"):
            print(json.dumps(got["memory"], sort_keys=True))
        else:
            print("failed", memory_id, got.get("error"))
    return 0


sys.exit(main(sys.argv[1]))
