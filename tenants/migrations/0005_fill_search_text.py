from django.db import migrations, transaction
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

from portal.search_text import LONGEST, folded

_BATCH = 2000
_FROM = {
    "PartnerTenant": ["name", "domain", "contact_name", "contact_email"],
    "CustomerTenant": ["company_name", "domain"],
}


def fill(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Fold the names of rows that are there, batch by batch; begun again it goes on with what is still empty."""
    connection = schema_editor.connection
    for name, columns in _FROM.items():
        model = apps.get_model("tenants", name)
        table = connection.ops.quote_name(model._meta.db_table)
        empty = model._default_manager.using(connection.alias).filter(search_text="").order_by("pk")
        last = 0
        while rows := list(empty.filter(pk__gt=last).values_list("pk", *columns)[:_BATCH]):
            last = rows[-1][0]
            texts = [(folded(*texts)[:LONGEST], key) for key, *texts in rows]
            with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
                cursor.executemany(f"UPDATE {table} SET search_text = %s WHERE id = %s", texts)


class Migration(migrations.Migration):
    atomic = False  # each batch is a transaction of its own

    dependencies = [("tenants", "0004_search_text")]

    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
