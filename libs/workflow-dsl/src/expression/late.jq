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
def IN(source; xs): any(source == xs; .);
def JOIN($index; f): [.[] | [., $index[f]]];
def JOIN($index; xs; f): xs | [., $index[f]];
def JOIN($index; xs; f; joined): xs | [., $index[f]] | joined;
def gamma: lgamma;
def leaf_paths: paths(scalars);
def recurse_down: recurse;
def isvalid(f): try (f | true) catch false;
def dateadd(unit; n): . + n;
def datesub(unit; n): . - n;
def tostream: path(def rec: (.[]? | __step | rec), .; rec) as $path
  | getpath($path) | reduce path(.[]?) as $last ([$path, .]; [$path + $last]);
def fromstream(f): {value: null, whole: false} as $none | foreach f as $event ($none;
  if .whole then $none else . end
  | if $event | length == 2
    then {value: (.value | setpath($event[0]; $event[1])), whole: ($event[0] | length == 0)}
    else {value, whole: ($event[0] | length == 1)} end;
  if .whole then .value else empty end);
def truncate_stream(events): . as $depth | null | events
  | if .[0] | length > $depth then .[0] |= .[$depth:] else empty end;
def @base32: tostring | __base32;
def format($name): if $name == "text" then @text elif $name == "json" then @json elif $name == "csv" then @csv
  elif $name == "tsv" then @tsv elif $name == "html" then @html elif $name == "uri" then @uri
  elif $name == "sh" then @sh elif $name == "base64" then @base64 elif $name == "base64d" then @base64d
  elif $name == "base32" then @base32 else error("\($name) is not a valid format") end;
