"`python -m soundtag.studies`: see chapter 20."

import sys

from soundtag.studies.study import main

sys.exit(main())
