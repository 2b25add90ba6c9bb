"`python -m soundtag.studies`: see chapter 20."

import sys

from soundtag.studies.study import main

if __name__ == '__main__':  # a study's worker processes import this file, too
    sys.exit(main())
