"""Validates YAML files against a schema with jsonschema: schema.py SCHEMA FILE... prints a line of JSON for each.

The files are read with PyYAML, which is YAML 1.1, as by many tools.
"""

import json
import sys

import jsonschema
import yaml

with open(sys.argv[1], encoding="utf-8") as file:
    schema = json.load(file)
validator_class = jsonschema.validators.validator_for(schema)
validator_class.check_schema(schema)
validator = validator_class(schema)
for name in sys.argv[2:]:
    with open(name, encoding="utf-8") as file:
        text = file.read()
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        sys.exit(f"{text}\n{error}")
    error = jsonschema.exceptions.best_match(validator.iter_errors(document))
    path = error.json_path if error else None
    print(json.dumps({"file": name, "valid": error is None, "path": path, "error": error and error.message[:300]}))
