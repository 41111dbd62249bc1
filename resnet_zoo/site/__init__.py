"""The zoo as a static web site: ``build_site`` writes it, from the manifest, run folders and reports.

Nothing here imports torch. Jinja2 (extra ``site``) is imported when a site is made. The pages need no network and no
server: they open from disk.
"""

from resnet_zoo.site.build import Site, build_site

__all__ = ["Site", "build_site"]
