"""What is written down about the rows: the manifest and its rules, recipes, classes, data sets, listings, speeds."""
