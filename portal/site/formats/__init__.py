"""How dates are written in the admin (``FORMAT_MODULE_PATH``): as `portal.site.display.moment` does."""
