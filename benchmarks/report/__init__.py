"""Result files to tables, pictures, the README and comparisons; nothing here measures."""
