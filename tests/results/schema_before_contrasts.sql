-- The results database. Its only writer is the evaluation stage, in one transaction per run.
-- No keys or indexes: rows are replaced in bulk, by run_id or by experiment.

-- Grain: one trained model (experiment, dataset, model, arm, seed and what else decided it).
-- The columns from alignment to alpha and from prompt_hash to profile_provenance are NULL for
-- a baseline, which knows nothing of profiles.
CREATE TABLE IF NOT EXISTS runs (
    run_id             VARCHAR NOT NULL,  -- 16 hex digits over what decides the run
    experiment         VARCHAR NOT NULL,
    dataset            VARCHAR NOT NULL,
    model              VARCHAR NOT NULL,
    arm                VARCHAR NOT NULL,  -- baseline, transfer or a control
    alignment          VARCHAR,
    reduction          VARCHAR,
    layer              VARCHAR,           -- the tap, with its slice if it has one
    alpha              DOUBLE,
    seed               BIGINT NOT NULL,
    config_hash        VARCHAR NOT NULL,  -- of the pipeline that evaluated the run last
    prompt_hash        VARCHAR,
    profile_source     VARCHAR,           -- offline, openai, openai-batch or import
    llm_model          VARCHAR,           -- NULL for offline profiles
    embedding_model    VARCHAR,
    profile_provenance VARCHAR,           -- train-only, unknown or leaky
    epochs_budget      INTEGER NOT NULL,
    epochs_run         INTEGER NOT NULL,
    best_epoch         INTEGER NOT NULL,  -- counted from 0
    train_seconds      DOUBLE NOT NULL,
    flow_run_id        VARCHAR,
    git_sha            VARCHAR,
    started_at         TIMESTAMPTZ NOT NULL,
    finished_at        TIMESTAMPTZ NOT NULL,
    config             JSON NOT NULL
);

-- Grain: one run, split, metric and cut-off: the mean over users.
CREATE TABLE IF NOT EXISTS metrics (
    run_id VARCHAR NOT NULL,
    split  VARCHAR NOT NULL,  -- valid or test
    metric VARCHAR NOT NULL,
    k      INTEGER,           -- NULL for metrics without a cut-off
    value  DOUBLE NOT NULL
);

-- Grain: one run, user, metric and cut-off, on test: what paired tests need. AUC and LogLoss are
-- sums over pairs: their values per user have the metric as mean, see models/evaluation/click_metrics.py.
CREATE TABLE IF NOT EXISTS user_metrics (
    run_id  VARCHAR NOT NULL,
    user_id VARCHAR NOT NULL,
    metric  VARCHAR NOT NULL,
    k       INTEGER,
    value   DOUBLE NOT NULL
);

-- Grain: one run and epoch. Losses are means over batches; seconds include validation.
CREATE TABLE IF NOT EXISTS epochs (
    run_id        VARCHAR NOT NULL,
    phase         VARCHAR NOT NULL,  -- train, transfer or finetune
    epoch         INTEGER NOT NULL,  -- counted from 0 through all phases
    model_loss    DOUBLE NOT NULL,
    transfer_loss DOUBLE,            -- NULL where nothing is transferred
    valid_score   DOUBLE NOT NULL,
    seconds       DOUBLE NOT NULL
);

-- Grain: one answer that a run used, paid for or served from the answer cache.
CREATE TABLE IF NOT EXISTS llm_calls (
    profile_key       VARCHAR NOT NULL,
    provider          VARCHAR NOT NULL,
    model             VARCHAR NOT NULL,
    prompt_tokens     BIGINT,
    completion_tokens BIGINT,
    cost_usd          DOUBLE,
    cached            BOOLEAN NOT NULL,
    latency_seconds   DOUBLE,
    finished_at       TIMESTAMPTZ
);

-- Grain: one experiment, model, arm, metric and cut-off: the arm against the baseline on test.
-- Holds each experiment's latest evaluation only.
CREATE TABLE IF NOT EXISTS contrasts (
    experiment         VARCHAR NOT NULL,
    evaluation_id      VARCHAR NOT NULL,  -- 16 hex digits over configuration and runs
    dataset            VARCHAR NOT NULL,
    model              VARCHAR NOT NULL,
    arm                VARCHAR NOT NULL,
    metric             VARCHAR NOT NULL,
    k                  INTEGER,           -- NULL for metrics without a cut-off
    baseline_mean      DOUBLE NOT NULL,
    baseline_sd        DOUBLE,            -- over seeds; NULL for a single seed
    arm_mean           DOUBLE NOT NULL,
    arm_sd             DOUBLE,
    gain_percent       DOUBLE,            -- relative to baseline_mean
    difference         DOUBLE,            -- arm - baseline; NULL where not comparable
    ci_low             DOUBLE,            -- 95 % confidence interval of the difference
    ci_high            DOUBLE,
    p_value            DOUBLE,            -- two-sided
    verdict            VARCHAR NOT NULL,
    profile_source     VARCHAR,
    profile_provenance VARCHAR,
    seeds              INTEGER NOT NULL,
    users              INTEGER NOT NULL,
    is_primary         BOOLEAN NOT NULL   -- the metric shown first
);

ALTER TABLE contrasts ALTER COLUMN k DROP NOT NULL;  -- it was, before there was AUC

-- Grain: as contrasts. What `llmkt compare` and the report show.
CREATE OR REPLACE VIEW comparison AS
SELECT * EXCLUDE (evaluation_id)
FROM contrasts
ORDER BY experiment, is_primary DESC, model, arm, metric, k;
