"""Checks everything below `deploy/`, docker-compose.yml and .github/workflows with the tools that read them.

    tests/manifests/check.py [--only WORD] [--write-rules]

`tests/run` installs the tools and runs it. Each check is a function below a `@check`; they run side by side, and each prints
one line. What a check refuses, it names with the file and what to do. Nothing here needs a network, a cluster or Docker.
"""

import argparse
import concurrent.futures
import pathlib
import sys
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import delivery  # noqa: E402
import images  # noqa: E402
import kubernetes  # noqa: E402
import monitoring  # noqa: E402
from ground import Refused  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="only checks whose name has this in it")
    parser.add_argument("--write-rules", action="store_true", help="write the PrometheusRule anew from deploy/prometheus/rules")
    arguments = parser.parse_args()
    if arguments.write_rules:
        monitoring.write_rules()
        return 0
    checks = [check for part in (monitoring, kubernetes, images, delivery) for check in part.CHECKS]
    chosen = [check for check in checks if arguments.only in check.__name__]
    if not chosen:
        print(f"no check has '{arguments.only}' in its name", file=sys.stderr)
        return 2
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(max_workers=3) as pool:
        for name, seconds, problem in pool.map(run, chosen):
            print(f"{'failed' if problem else 'ok    '}  {name.replace('_', ' ')} ({seconds:.1f} s)", flush=True)
            if problem:
                failed += 1
                print("        " + problem.strip().replace("\n", "\n        "), flush=True)
    print(f"manifests: {len(chosen) - failed} passed, {failed} failed")
    return 1 if failed else 0


def run(check):
    started = time.monotonic()
    problem = None
    try:
        check()
    except Refused as refused:
        problem = str(refused)
    except Exception:  # a defect of the check is a failure too, and not the end of the others
        problem = traceback.format_exc()
    return check.__name__, time.monotonic() - started, problem


if __name__ == "__main__":
    sys.exit(main())
