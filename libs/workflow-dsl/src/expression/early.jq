def matches(re; flags):       re as $re | flags as $flags | __pattern($re) | __matches($re; $flags);
def split_matches(re; flags): re as $re | flags as $flags | __pattern($re) | __split_matches($re; $flags);
def split_(re; flags):        re as $re | flags as $flags | __pattern($re) | __split_($re; $flags);
def recurse: ..;
def recurse(f):            def rec: ., (f | __step | rec); rec;
def repeat(f):             def rec: ., (f | __step | rec); rec;
def while(cond; update):   def rec: if cond then ., (update | __step | rec) else {}[] as $none | . end; rec;
def until(cond; update):   def rec: if cond then . else update | __step | rec end; rec;
