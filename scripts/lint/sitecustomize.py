"""On PYTHONPATH of `make lint` alone: let linters that import modules find this project's module_utils.

At run time Ansible ships module_utils/ as ansible.module_utils; ansible-lint's rule `args` imports modules without it
and skips in silence the files whose modules it cannot import.
"""

from pathlib import Path

import ansible.module_utils

root = Path(__file__).parents[2]
ansible.module_utils.__path__ += [str(root / "module_utils"), str(root / "lab/module_utils")]
