def delpaths($paths): reduce ($paths | unique | reverse[]) as $path (.; getpath($path) |= empty);
def del(f): delpaths([path(f)]);
def to_entries: [key_values[] as [$key, $value] | {$key, $value}];
def from_entries: reduce .[] as $entry ({}; . + {
  ($entry
    | if type != "object" then error("an entry must be an object, not \(type)") end
    | [.key, .k, .name, .Name, .Key, .K][] as $name | select($name != null) | $name
    | if type == "string" then . else tojson end):
  ($entry | if has("value") then .value elif has("v") then .v else .Value end)
});
def with_entries(f): to_entries | map(f) | from_entries;
def toboolean: if type == "boolean" then . elif . == "true" then true elif . == "false" then false
  else error("\(tojson) is not a boolean") end;
def transpose: [range([.[] | length] | max) as $column | [.[][$column]]];
def in(xs):     . as $key  | xs | has($key);
def inside(xs): . as $part | xs | contains($part);
def index($part):  indices($part) | .[0];
def rindex($part): indices($part) | .[-1];
def IN(xs): any(xs == .; .);
def INDEX(xs; f): reduce xs as $item ({}; . + {($item | f | tostring): $item});
def INDEX(f): INDEX(.[]; f);
def ascii: [.] | implode;
def toarray: if type == "array" then . else [.] end;
def trimstr($text): ltrimstr($text) | rtrimstr($text);
def localtime: gmtime;
def strflocaltime($format): strftime($format);
def date: todate;
def @json: tojson;
def @csv: [.[] | if type == "string" then "\"" + (. / "\"" | join("\"\"")) + "\""
  elif . == null then "" else tostring end] | join(",");
def @tsv: [.[] | if type == "string" then . / "\\" | join("\\\\") | . / "\t" | join("\\t") | . / "\n" | join("\\n")
  | . / "\r" | join("\\r") elif . == null then "" else tostring end] | join("\t");
