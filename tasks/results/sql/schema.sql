-- The results database. Its only writers are the evaluation stage, in one
-- transaction per run, and tasks/nightly/promotion_log.py, in one per night.
-- A comparison's columns are the fields of models.statistics.contrasts.Contrast, put in when read.
-- No keys or indexes: rows are replaced in bulk, by run_id or by experiment.

-- Grain: one trained model (experiment, dataset, model, arm, seed and what else decided it).
-- The columns from alignment to alpha and from prompt_hash to profile_provenance are NULL for
-- a baseline, which knows nothing of profiles.
CREATE TABLE IF NOT EXISTS runs (
    run_id             VARCHAR NOT NULL,  -- 16 hex digits over everything that decides the run:
        -- experiment, data set, split, model, arm, seed, hyper-parameters, budget, rankings, and
        -- for arms with profiles the transfer settings and the origin of the profiles
    experiment         VARCHAR NOT NULL,  -- name of the experiment
    dataset            VARCHAR NOT NULL,  -- name of the data set
    model              VARCHAR NOT NULL,  -- RecBole's name of the model
    arm                VARCHAR NOT NULL,  -- baseline, transfer, kar or a control
    alignment          VARCHAR,  -- transfer loss
    reduction          VARCHAR,  -- how embeddings became targets
    layer              VARCHAR,  -- the tap with its slice; users' and items' if both are tapped;
        -- NULL for EASE, which takes whole embeddings
    alpha              DOUBLE,  -- weight of the transfer loss, 0 to 1
    seed               BIGINT NOT NULL,  -- of the training
    config_hash        VARCHAR NOT NULL,  -- hash of the configuration under which the run was last
        -- evaluated
    prompt_hash        VARCHAR,  -- hash of the prompt template; with profiles of users and items
        -- both, separated by a comma, and likewise below
    profile_source     VARCHAR,  -- offline (statistics of the history, no LLM), openai,
        -- openai-batch or import; followed by (items) if users are described by the profiles of
        -- their items
    llm_model          VARCHAR,  -- NULL for offline and imported profiles
    embedding_model    VARCHAR,  -- the text model; marked where words were only hashed
    profile_provenance VARCHAR,  -- none seen, train-only, unknown or leaky
    warnings           VARCHAR,  -- what weakens the knowledge: profiles that are missing or were
        -- shortened, texts that were cut; one a line
    epochs_budget      INTEGER,  -- most epochs, both phases together; NULL, as patience, valid_metric and
        -- search_trials, for a model trained elsewhere, of which rankings alone are known
    epochs_run         INTEGER NOT NULL,  -- epochs that ran
    best_epoch         INTEGER NOT NULL,  -- epoch whose weights were kept, from 0
    train_seconds      DOUBLE NOT NULL,  -- wall time of all epochs, validation included
    flow_run_id        VARCHAR,  -- Prefect flow run that trained it
    git_sha            VARCHAR,  -- commit of the code that evaluated it; NULL outside of a
        -- repository
    started_at         TIMESTAMPTZ NOT NULL,  -- start of the training
    finished_at        TIMESTAMPTZ NOT NULL,  -- end of the training
    config             JSON NOT NULL,  -- the whole configuration; under job the part of this run
    split_digest       VARCHAR NOT NULL,  -- 16 hex digits over the pairs in train, valid and test
    candidate_items    INTEGER NOT NULL,  -- number of items that are ranked
    patience           INTEGER,  -- in epochs
    valid_metric       VARCHAR,  -- metric of early stopping
    batch_size         INTEGER,  -- NULL for a computed model; arms may differ in it
    search_trials      INTEGER,  -- settings tried on valid, in all searches of the
        -- experiment
    is_current         BOOLEAN NOT NULL,  -- whether the run belongs to the latest evaluation of
        -- its experiment
    point              VARCHAR,  -- the pool of its points; NULL if several pools share the run,
        -- where points differ in split.seed alone, and without points
    device             VARCHAR NOT NULL,  -- cpu or cuda
    precision          VARCHAR NOT NULL,  -- float32, or bfloat16 for mixed precision
    artifacts          JSON NOT NULL  -- paths in the data folder of train, valid, test, items, rankings,
        -- and of embeddings and profiles by side
);

-- Grain: one run, split, metric and cut-off: the mean over users. coverage, novelty, gini,
-- popularity, diversity and calibration describe the lists, see models/evaluation/beyond_accuracy.py.
CREATE TABLE IF NOT EXISTS metrics (
    run_id VARCHAR NOT NULL,  -- as in runs
    split  VARCHAR NOT NULL,  -- valid or test
    metric VARCHAR NOT NULL,  -- ndcg, recall, hit, precision, mrr, map (as in RecBole 1.2.1, full
        -- ranking), auc, logloss (nats), coverage, novelty, gini, popularity, diversity, calibration
    k      INTEGER,  -- cut-off; NULL for metrics without one
    value  DOUBLE NOT NULL  -- mean over users with held-out items; auc and logloss: over all
        -- held-out pairs; over the first k of all ranked users, coverage: share of the catalogue among
        -- anyone's; novelty: bits, mean of -log2 of the share of training users who have an item;
        -- gini: 0 to 1, of how often items are there; popularity: mean training interactions;
        -- diversity: mean of 1 minus the cosine of two items' genres; calibration: nats, divergence
        -- of the list's genres from the history's
);

-- Grain: one run, user, metric and cut-off, on test: what paired tests need. AUC and LogLoss are
-- sums over pairs: their values per user have the metric as mean, see models/evaluation/click_metrics.py.
CREATE TABLE IF NOT EXISTS user_metrics (
    run_id  VARCHAR NOT NULL,  -- as in runs
    user_id VARCHAR NOT NULL,  -- raw id
    metric  VARCHAR NOT NULL,  -- as in metrics
    k       INTEGER,  -- cut-off
    value   DOUBLE NOT NULL  -- 0 to 1; auc and logloss: values whose mean is the metric and whose
        -- spread is its sampling variation over users
);

-- Grain: one run and epoch. Losses are means over batches; seconds include validation.
CREATE TABLE IF NOT EXISTS epochs (
    run_id        VARCHAR NOT NULL,  -- as in runs
    phase         VARCHAR NOT NULL,  -- train (baseline), transfer or finetune
    epoch         INTEGER NOT NULL,  -- from 0, through all phases
    model_loss    DOUBLE NOT NULL,  -- the model's own loss, mean over batches
    transfer_loss DOUBLE,  -- mean over batches; NULL without transfer
    valid_score   DOUBLE NOT NULL,  -- training.valid_metric on valid
    seconds       DOUBLE NOT NULL  -- training and validation
);

-- Grain: one answer that a run used, paid for or served from the answer cache.
CREATE TABLE IF NOT EXISTS llm_calls (
    profile_key       VARCHAR NOT NULL,  -- key of the profile's answer
    provider          VARCHAR NOT NULL,  -- who answered
    model             VARCHAR NOT NULL,  -- which model answered
    prompt_tokens     BIGINT,  -- as counted by the endpoint, over all attempts; an attempt without
        -- a count adds nothing
    completion_tokens BIGINT,  -- likewise
    cost_usd          DOUBLE,  -- US dollars by the price table of the day of payment, retries and
        -- rejected answers included, batches at their discount; 0 from the cache; NULL if price or
        -- use are not known
    cached            BOOLEAN NOT NULL,  -- served from answers.sqlite
    latency_seconds   DOUBLE,  -- from request to answer
    finished_at       TIMESTAMPTZ  -- time of the answer
);

-- Grain: one run, slice, metric and cut-off, on test: the mean over the slice's users, or over the
-- users who hold out an item of it.
CREATE TABLE IF NOT EXISTS slices (
    run_id VARCHAR NOT NULL,  -- as in runs
    kind   VARCHAR NOT NULL,  -- history (users by quarters of their training interactions),
        -- popularity (held-out items) or profile (users)
    slice  VARCHAR NOT NULL,  -- history: 1 coldest, 2, 3, 4 heaviest (equal counts stay together,
        -- so quarters may be unequal or missing); popularity: head, the fewest items with 80 % of
        -- the training interactions, or tail, which restrict the relevant items of full rankings;
        -- profile: with, without
    low    INTEGER,  -- fewest training interactions of a user (item) in the slice; NULL for
        -- profile
    high   INTEGER,  -- most training interactions; NULL for profile
    metric VARCHAR NOT NULL,  -- as in user_metrics
    k      INTEGER,  -- cut-off
    value  DOUBLE NOT NULL,  -- mean over the slice's users, or over users who hold out an item of
        -- it; auc and logloss: over its pairs, no row if all or none are likes
    users  INTEGER NOT NULL  -- number of those users
);

-- Grain: one experiment, point, model, arm, what it is compared with, metric and cut-off, on test.
-- Holds each experiment's latest evaluation only.
CREATE TABLE IF NOT EXISTS contrasts (
    experiment         VARCHAR NOT NULL,  -- name of the experiment
    evaluation_id      VARCHAR NOT NULL,  -- 16 hex digits over configuration and runs
    dataset            VARCHAR NOT NULL,  -- name of the data set
    {contrast}
    family             VARCHAR,  -- 16 hex digits over all claims, declared before test was scored;
        -- NULL where exploratory
    profile_source     VARCHAR,  -- as in runs
    profile_provenance VARCHAR,  -- as in runs
    warnings           VARCHAR  -- as in runs
);

-- Grain: as contrasts with the baseline, per slice.
CREATE TABLE IF NOT EXISTS slice_contrasts (
    experiment         VARCHAR NOT NULL,  -- name of the experiment
    evaluation_id      VARCHAR NOT NULL,  -- as in contrasts
    dataset            VARCHAR NOT NULL,  -- as in contrasts
    kind               VARCHAR NOT NULL,  -- as in slices
    slice              VARCHAR NOT NULL,  -- as in slices
    low                INTEGER,  -- as in slices
    high               INTEGER,  -- as in slices
    {contrast}
    profile_source     VARCHAR,  -- as in runs
    profile_provenance VARCHAR,  -- as in runs
    warnings           VARCHAR  -- as in runs
);

-- Grain: one night of an experiment, also a failed or killed one. Means, difference and interval are in the metric's own unit,
-- over the users that both models can serve; NULL where nothing was compared.
CREATE TABLE IF NOT EXISTS promotions (
    experiment         VARCHAR NOT NULL,  -- name of the experiment
    decided_at         TIMESTAMPTZ NOT NULL,  -- start of the night
    flow_run_id        VARCHAR,  -- Prefect flow run
    champion_version   VARCHAR,  -- version that was published at that time; NULL before the first
    challenger_version VARCHAR,  -- version that was trained; NULL if none was
    metric             VARCHAR NOT NULL,  -- nightly.metric, without cut-off
    k                  INTEGER NOT NULL,  -- its cut-off
    champion_mean      DOUBLE,  -- over the judged users
    challenger_mean    DOUBLE,  -- over the judged users
    difference         DOUBLE,  -- challenger minus champion
    ci_low             DOUBLE,  -- lower end of its interval, paired by user
    ci_high            DOUBLE,  -- upper end
    tolerance          DOUBLE NOT NULL,  -- how far below 0 ci_low may lie
    users              INTEGER,  -- number of judged users; of a first champion, of users it was
        -- scored on
    cold_difference    DOUBLE,  -- difference for the quarter of users with the fewest
        -- interactions
    cold_ci_high       DOUBLE,  -- upper end of its interval
    anchor_version     VARCHAR,  -- version that no later one may fall far behind
    anchor_difference  DOUBLE,  -- challenger minus anchor
    anchor_ci_low      DOUBLE,  -- lower end of its interval
    decision           VARCHAR NOT NULL,  -- published, kept (the champion), needs approval,
        -- skipped or failed
    reason             VARCHAR NOT NULL,  -- the decision in words, with its figures
    interactions       BIGINT NOT NULL,  -- all interactions of that night
    new_interactions   BIGINT NOT NULL,  -- interactions since the last judged challenger
    quarantined        BIGINT NOT NULL,  -- refused rows and files of all incoming files
    start              VARCHAR NOT NULL,  -- cold, or warm: from the weights of the champion
    refit              VARCHAR,  -- per side, why the reducer was fitted, or that it was kept
    cost_usd           DOUBLE,  -- cost of this night's answers; NULL if a price is not known
    served_from        VARCHAR,  -- nightly.serve_from
    users_known        BIGINT,  -- all users; this and what follows is NULL without lists
    users_served       BIGINT,  -- users with a list: all but those who know the whole catalogue
    users_by_model     BIGINT,  -- users whose list is the model's own
    coverage           DOUBLE,  -- share of the catalogue in any list
    tail_share         DOUBLE,  -- share of places for items outside of the head
    list_overlap       DOUBLE,  -- mean share of a list that was in the champion's
    profile_drift      DOUBLE  -- 1 minus the mean cosine of profile vectors with the champion's
);

-- Grain: one night that measured what knowledge adds, and control. No decision depends on it.
CREATE TABLE IF NOT EXISTS knowledge (
    experiment         VARCHAR NOT NULL,  -- name of the experiment
    decided_at         TIMESTAMPTZ NOT NULL,  -- as in promotions
    model              VARCHAR NOT NULL,  -- RecBole's name of the model
    arm                VARCHAR NOT NULL,  -- nightly.arm
    against            VARCHAR NOT NULL,  -- baseline or shuffled, trained on equal terms
    metric             VARCHAR NOT NULL,  -- nightly.metric, without cut-off
    k                  INTEGER NOT NULL,  -- its cut-off
    users              INTEGER NOT NULL,  -- how many hold out interactions that night
    difference         DOUBLE NOT NULL,  -- arm minus control, that night
    ci_low             DOUBLE NOT NULL,  -- lower end of its interval, paired by user
    ci_high            DOUBLE NOT NULL,  -- upper end
    ci_level           DOUBLE NOT NULL,  -- nightly.confidence
    differences        MAP(VARCHAR, DOUBLE) NOT NULL,  -- that night's difference by raw user id
    nights             INTEGER NOT NULL,  -- how many measured this model, arm and control by then
    running_difference DOUBLE NOT NULL,  -- mean of these nights' differences
    running_ci_low     DOUBLE NOT NULL,  -- lower end of its interval; users and nights are samples
    running_ci_high    DOUBLE NOT NULL,  -- upper end
    cost_usd           DOUBLE,  -- cost of the answers of all judged nights by then; NULL if one is not
        -- known
    usd_per_point      DOUBLE  -- cost_usd per 0.01 of running_difference; NULL if that is not
        -- positive
);

-- Grain: one experiment and point: a combination of settings, and what became of it.
CREATE TABLE IF NOT EXISTS points (
    experiment    VARCHAR NOT NULL,  -- as in contrasts
    evaluation_id VARCHAR NOT NULL,  -- as in contrasts
    point         VARCHAR NOT NULL,  -- its name, such as alpha=0.1 reduction=pca
    pool          VARCHAR,  -- its name in comparisons: points of one pool differ in split.seed
        -- alone; NULL where all points do
    overrides     JSON NOT NULL,  -- its own values by dotted key
    state         VARCHAR NOT NULL,  -- ok, failed or excluded
    reason        VARCHAR,  -- why it failed, or the exclusion that applies; NULL if it is ok
    run_ids       VARCHAR[] NOT NULL  -- its rows in runs, shared ones included; empty unless it is
        -- ok
);

-- Grain: one experiment, point, model, arm, search and trial, earlier searches included.
-- Test is not among what it saw.
CREATE TABLE IF NOT EXISTS trials (
    experiment    VARCHAR NOT NULL,  -- as in contrasts
    evaluation_id VARCHAR NOT NULL,  -- as in contrasts
    point         VARCHAR NOT NULL,  -- as in points
    model         VARCHAR NOT NULL,  -- as in runs
    arm           VARCHAR NOT NULL,  -- as in runs
    trial         INTEGER NOT NULL,  -- from 0
    params        JSON NOT NULL,  -- the setting by dotted key
    search        VARCHAR NOT NULL,  -- 16 hex digits over what was searched
    valid_score   DOUBLE,  -- training.valid_metric on valid in the best epoch, with the first
        -- seed; pruned: of the short training; NULL if it failed
    state         VARCHAR NOT NULL,  -- complete, pruned or failed
    is_best       BOOLEAN NOT NULL,  -- whether this setting was trained with all seeds
    is_current    BOOLEAN NOT NULL  -- whether the latest search made it; others are history
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
