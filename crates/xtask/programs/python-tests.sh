# A part of python's own test suite. What is compared is how each module ended, so that a module
# that fails on this machine anyway (as root, without a network) does not hide the others, and must fail in the same tests.
python=$(python3 -c 'import sys; print(sys.executable)')
"$python" -c 'import test.support' 2>/dev/null || { echo "python3 has no test suite" >&2; exit 77; }

modules="
test_array test_bigmem test_bytes test_bz2 test_codecs test_collections test_complex
test_concurrent_futures test_copy test_csv test_ctypes test_dataclasses test_decimal test_deque
test_dict test_exceptions test_fork1 test_functools test_gc test_generators test_hashlib
test_heapq test_io test_itertools test_json test_list test_long test_lzma test_mmap
test_multiprocessing_fork test_ordered_dict test_pickle test_queue test_random test_re test_set
test_sort test_sqlite3 test_string test_struct test_subprocess test_thread test_threading
test_threading_local test_tuple test_unicode test_userstring test_weakref test_xml_etree test_zlib
"
# Some builds leave this one out, and keep what it is made of.
cat >test_mp_fork.py <<'PY'
import unittest
from test._test_multiprocessing import install_tests_in_module_dict

install_tests_in_module_dict(globals(), "fork")

if __name__ == "__main__":
    unittest.main()
PY

# How a module ended: its exit status and, if that is not 0, which of its tests failed.
report() {
    local name=$1 status=$2
    if [ "$status" = 0 ]; then echo "$name passed"; return; fi
    echo "$name ended with $status"
    { grep -aE '^(FAIL|ERROR): ' "$name.log" || true; } | sort -u
    { echo "== $name"; tail -n 25 "$name.log"; } >&2
}

for module in $modules; do
    "$python" -c "import test.$module" >/dev/null 2>&1 || continue
    status=0
    timeout 300 "$python" -m test --timeout 240 "$module" >"$module.log" 2>&1 || status=$?
    report "$module" "$status"
done
if "$python" -c 'import test._test_multiprocessing' >/dev/null 2>&1; then
    status=0
    timeout 600 "$python" test_mp_fork.py >test_mp_fork.log 2>&1 || status=$?
    report test_mp_fork "$status"
fi
