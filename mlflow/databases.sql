-- MLflow's databases beside autotune's own: MLflow and Optuna both use a table `alembic_version`.
CREATE DATABASE mlflow;
CREATE DATABASE mlflow_auth;
