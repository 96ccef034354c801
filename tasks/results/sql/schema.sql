-- The results database. Its only writers are the evaluation stage, in one
-- transaction per run, and tasks/nightly/promotion_log.py, in one per night.
-- A comparison's columns are the fields of models.statistics.contrasts.Contrast, put in when read.
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
    config             JSON NOT NULL,
    split_digest       VARCHAR NOT NULL,  -- over the pairs in train, valid and test
    candidate_items    INTEGER NOT NULL,  -- that are ranked
    patience           INTEGER NOT NULL,
    valid_metric       VARCHAR NOT NULL,  -- of early stopping
    batch_size         INTEGER,           -- NULL for a computed model
    search_trials      INTEGER NOT NULL,  -- settings tried on valid before this one
    is_current         BOOLEAN NOT NULL,  -- belongs to the experiment's latest evaluation
    point              VARCHAR,           -- of an experiment; NULL where several points share it
    device             VARCHAR NOT NULL,  -- cpu or cuda
    precision          VARCHAR NOT NULL   -- float32, or bfloat16: mixed
);

-- Grain: one run, split, metric and cut-off: the mean over users. coverage (share of the
-- catalogue that is recommended to anyone) and novelty (bits) are of the system, see
-- models/evaluation/slices.py.
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

-- Grain: one run, slice, metric and cut-off, on test: the mean over the slice's users, or over the
-- users who hold out an item of it.
CREATE TABLE IF NOT EXISTS slices (
    run_id VARCHAR NOT NULL,
    kind   VARCHAR NOT NULL,  -- history or profile (of users), popularity (of held-out items)
    slice  VARCHAR NOT NULL,  -- 1 coldest, 2, 3, 4 heaviest; with, without; head, tail
    low    INTEGER,           -- fewest training interactions in it; NULL for profile
    high   INTEGER,           -- most
    metric VARCHAR NOT NULL,
    k      INTEGER,
    value  DOUBLE NOT NULL,
    users  INTEGER NOT NULL
);

-- Grain: one experiment, point, model, arm, what it is compared with, metric and cut-off, on test.
-- Holds each experiment's latest evaluation only.
CREATE TABLE IF NOT EXISTS contrasts (
    experiment         VARCHAR NOT NULL,
    evaluation_id      VARCHAR NOT NULL,  -- 16 hex digits over configuration and runs
    dataset            VARCHAR NOT NULL,
    {contrast}
    profile_source     VARCHAR,
    profile_provenance VARCHAR
);

-- Grain: as contrasts with the baseline, per slice.
CREATE TABLE IF NOT EXISTS slice_contrasts (
    experiment         VARCHAR NOT NULL,
    evaluation_id      VARCHAR NOT NULL,
    dataset            VARCHAR NOT NULL,
    kind               VARCHAR NOT NULL,  -- as in slices
    slice              VARCHAR NOT NULL,
    low                INTEGER,
    high               INTEGER,
    {contrast}
    profile_source     VARCHAR,
    profile_provenance VARCHAR
);

-- Grain: one night of an experiment. Means, difference and interval are in the metric's own unit,
-- over the users that both models can serve; NULL where nothing was compared.
CREATE TABLE IF NOT EXISTS promotions (
    experiment         VARCHAR NOT NULL,
    decided_at         TIMESTAMPTZ NOT NULL,
    flow_run_id        VARCHAR,
    champion_version   VARCHAR,           -- NULL before the first
    challenger_version VARCHAR,           -- NULL where nothing was trained
    metric             VARCHAR NOT NULL,
    k                  INTEGER NOT NULL,
    champion_mean      DOUBLE,
    challenger_mean    DOUBLE,
    difference         DOUBLE,            -- challenger - champion
    ci_low             DOUBLE,
    ci_high            DOUBLE,
    tolerance          DOUBLE NOT NULL,
    users              INTEGER,           -- how many were paired
    decision           VARCHAR NOT NULL,  -- published, kept or skipped
    reason             VARCHAR NOT NULL,
    interactions       BIGINT NOT NULL,   -- that there were, drops folded in
    new_interactions   BIGINT NOT NULL,   -- since the last challenger
    quarantined        BIGINT NOT NULL,   -- rows and files of drops that were refused
    start              VARCHAR NOT NULL,  -- cold or warm
    refit              VARCHAR,           -- why the reducer was fitted anew, or kept
    cost_usd           DOUBLE             -- of this night's answers; NULL where not known
);

-- Grain: one experiment and point: a combination of settings, and what became of it.
CREATE TABLE IF NOT EXISTS points (
    experiment    VARCHAR NOT NULL,
    evaluation_id VARCHAR NOT NULL,
    point         VARCHAR NOT NULL,
    overrides     JSON NOT NULL,      -- the point's own values by dotted key
    state         VARCHAR NOT NULL,   -- ok, failed or excluded
    reason        VARCHAR,            -- why it failed or was excluded
    run_ids       VARCHAR[] NOT NULL  -- its runs, those that it shares included
);

-- Grain: one experiment, point, model, arm and trial of a search. Test is not among what it saw.
CREATE TABLE IF NOT EXISTS trials (
    experiment    VARCHAR NOT NULL,
    evaluation_id VARCHAR NOT NULL,
    point         VARCHAR NOT NULL,
    model         VARCHAR NOT NULL,
    arm           VARCHAR NOT NULL,
    trial         INTEGER NOT NULL,   -- counted from 0
    params        JSON NOT NULL,      -- by dotted key
    valid_score   DOUBLE,             -- training.valid_metric on valid; NULL where it failed
    state         VARCHAR NOT NULL,   -- complete, pruned or failed
    is_best       BOOLEAN NOT NULL    -- trained with all seeds
);

-- Grain: one experiment, model, arm, metric and cut-off: the arm against its baseline. What
-- `llmkt compare` and the report show.
CREATE OR REPLACE VIEW comparison AS
SELECT * EXCLUDE (evaluation_id)
FROM contrasts
WHERE against = 'baseline'
ORDER BY experiment, is_primary DESC, point, model, arm, metric, k;

-- Grain: as contrasts. Against the baseline, other arms and reference models.
CREATE OR REPLACE VIEW contrasts_all AS
SELECT * EXCLUDE (evaluation_id)
FROM contrasts
ORDER BY experiment, is_primary DESC, against <> 'baseline', against, point, model, arm, metric, k;

-- Grain: one experiment, slice, model, arm, metric and cut-off: the arm against its baseline.
CREATE OR REPLACE VIEW slice_comparison AS
SELECT * EXCLUDE (evaluation_id)
FROM slice_contrasts
ORDER BY experiment, is_primary DESC, point, kind, slice, model, arm, metric, k;
