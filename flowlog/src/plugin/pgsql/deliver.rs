//! A batch into the tables: one transaction. First all rows at once; where the server
//! does not take them so, once more with care: those that are there already are
//! passed over, and those that it will never take are found by halves.

use std::ops::Range;

use bytes::Bytes;
use futures_util::SinkExt as _;
use tokio_postgres::CopyInSink;

use super::copy::Copied;
use super::failure::{self, Failed};
use super::own::{self, TABLES};
use super::record::{self, ENCODING};
use super::session::{self, Session, Tables};
use super::{partition, quoted};
use crate::plugin::ship::{Batch, Delivered, Trouble};

/// So many rows of a batch may be refused for ever, and are lost. With more it is the table that
/// has to be mended, and records wait for it.
const REFUSALS: u64 = 1000;

/// Rows for one table.
struct Sheet {
    rows: Copied,
    /// Where COPY takes them to: the table and its columns.
    into: String,
    stage: Stage,
}

/// How rows reach a table that COPY cannot be asked to fill.
enum Stage {
    /// COPY does; and if one of the rows is there already, this.
    IfKnown(Detour),
    /// Always so.
    Always(Detour),
    /// Nothing else is of help.
    Never,
}

/// By a table of the transaction.
struct Detour {
    /// What makes it, if it is not there.
    make: String,
    name: String,
    into: String,
    hand_on: String,
}

/// What became of rows.
#[derive(Debug, Default)]
struct Stored {
    /// There already.
    known: u64,
    refused: u64,
    why: Option<String>,
    bytes: u64,
}

impl Session {
    pub(super) async fn store(&mut self, batch: &Batch) -> Result<Delivered, Trouble> {
        if batch.encoding() != ENCODING {
            return Err(Trouble::refused(format!(
                "the spool holds records as another version of flowlog has written them ({}): run \
                 that until they are delivered",
                batch.encoding()
            )));
        }
        let (sheets, unfit) = self.sheets(batch);
        self.bear(&unfit)?;
        let mut stored = self.sheets_to_tables(&sheets, batch).await?;
        stored.refused += unfit.refused;
        stored.why = stored.why.or(unfit.why);
        let Stored { known, refused, why, bytes } = stored;
        let records = batch.len().saturating_sub(refused);
        Ok(Delivered { records, known, refused, why, bytes, held: false })
    }

    /// The rows of a batch, and how many of its records have none.
    fn sheets(&mut self, batch: &Batch) -> (Vec<Sheet>, Stored) {
        let mut unfit = Stored::default();
        let mut refuse = |why: String| {
            unfit.refused += 1;
            unfit.why = Some(why);
        };
        for one in batch.records() {
            let counted = match record::read(one.body, &mut self.record) {
                Ok(counted) => counted,
                Err(why) => {
                    refuse(format!("the spool holds something else: {why}"));
                    continue;
                }
            };
            match &mut self.tables {
                Tables::Own(rows) => own::fill(&self.record, one.id, rows),
                // It has rows of connections only.
                Tables::Ulogd(..) if !record::is_flow(&self.record) => {}
                Tables::Ulogd(table, rows) => {
                    table.fill(&self.record, counted, rows).unwrap_or_else(&mut refuse);
                }
            }
        }
        let schema = quoted(&self.target.schema);
        let sheets: Vec<Sheet> = match &mut self.tables {
            Tables::Own(rows) => {
                let all = TABLES.iter().zip(rows.iter_mut());
                all.map(|(table, rows)| own_sheet(&schema, table, rows.take())).collect()
            }
            Tables::Ulogd(table, rows) => {
                let stage = table.stage().map_or(Stage::Never, |(make, hand_on)| {
                    Stage::Always(Detour {
                        make,
                        name: "pg_temp.flowlog_stage".to_owned(),
                        into: table.place(),
                        hand_on,
                    })
                });
                vec![Sheet { rows: rows.take(), into: table.place(), stage }]
            }
        };
        (sheets.into_iter().filter(|sheet| sheet.rows.len() > 0).collect(), unfit)
    }

    async fn sheets_to_tables(
        &mut self,
        sheets: &[Sheet],
        batch: &Batch,
    ) -> Result<Stored, Trouble> {
        let (mut careful, mut partitioned) = (false, false);
        loop {
            match self.transact(sheets, careful).await {
                Ok(stored) => return Ok(stored),
                Err(Failed::Trouble(trouble)) => return Err(trouble),
                Err(Failed::NoPartition(why)) => {
                    self.roll_back().await?;
                    if std::mem::replace(&mut partitioned, true) {
                        return Err(Trouble::refused(format!(
                            "{}: {why}; attach the partition for that time, or rename the table \
                             that has its name",
                            self.peer()
                        )));
                    }
                    self.make_partitions(batch).await?;
                }
                Err(Failed::Row(_) | Failed::Known(_)) if !careful => {
                    self.roll_back().await?;
                    careful = true;
                }
                Err(Failed::Row(why) | Failed::Known(why)) => {
                    return Err(Trouble::refused(format!("{}: {why}", self.peer())));
                }
            }
        }
    }

    async fn make_partitions(&self, batch: &Batch) -> Result<(), Trouble> {
        let Tables::Own(_) = &self.tables else { return Ok(()) };
        for month in partition::months(batch.records().map(|record| record.id.time)) {
            for table in &TABLES {
                partition::make(&self.client, &self.peer(), table.name, month).await?;
            }
        }
        Ok(())
    }

    async fn transact(&self, sheets: &[Sheet], careful: bool) -> Result<Stored, Failed> {
        let mut stored = Stored::default();
        self.run(&session::begin(&self.target.schema)).await?;
        if careful {
            // What is to be found at the end could not be told from the others.
            self.run("SET CONSTRAINTS ALL IMMEDIATE").await?;
        }
        for sheet in sheets {
            if careful {
                self.by_halves(sheet, &mut stored).await?;
            } else {
                self.put(sheet, 0..sheet.rows.len(), false, &mut stored).await?;
            }
        }
        self.run("COMMIT").await?;
        Ok(stored)
    }

    /// Puts the rows of a sheet but for those that the table does not take.
    async fn by_halves(&self, sheet: &Sheet, stored: &mut Stored) -> Result<(), Failed> {
        let mut left: Vec<Range<usize>> = std::iter::once(0..sheet.rows.len()).collect();
        while let Some(rows) = left.pop() {
            self.run("SAVEPOINT part").await?;
            match self.put(sheet, rows.clone(), true, stored).await {
                Ok(()) => self.run("RELEASE SAVEPOINT part").await?,
                Err(Failed::Row(why) | Failed::Known(why)) => {
                    self.run("ROLLBACK TO SAVEPOINT part").await?;
                    if rows.len() == 1 {
                        stored.refused += 1;
                        stored.why = Some(why);
                        self.bear(stored)?;
                    } else {
                        let middle = rows.start + rows.len() / 2;
                        // The first half first: the order is kept.
                        left.extend([middle..rows.end, rows.start..middle]);
                    }
                }
                Err(failed) => return Err(failed),
            }
        }
        Ok(())
    }

    /// Whether what was refused so far is a matter of those rows.
    fn bear(&self, stored: &Stored) -> Result<(), Trouble> {
        match &stored.why {
            Some(why) if stored.refused > REFUSALS => Err(Trouble::refused(format!(
                "{}: more than {REFUSALS} rows of a batch are refused, one because {why}; mend the \
                 table, for that many are not thrown away",
                self.peer()
            ))),
            _ => Ok(()),
        }
    }

    /// Puts some rows of a sheet into its table, all or none.
    async fn put(
        &self,
        sheet: &Sheet,
        rows: Range<usize>,
        careful: bool,
        stored: &mut Stored,
    ) -> Result<(), Failed> {
        let count = rows.len() as u64;
        let detour = match &sheet.stage {
            Stage::Always(detour) => detour,
            Stage::IfKnown(detour) if careful => detour,
            Stage::IfKnown(_) | Stage::Never => {
                return self.copy(&sheet.into, &sheet.rows, rows, stored).await;
            }
        };
        let Detour { make, name, into, hand_on } = detour;
        self.run(make).await?;
        self.copy(into, &sheet.rows, rows, stored).await?;
        let put = self.client.execute_typed(hand_on, &[]).await;
        let put = put.map_err(|why| self.failed(&why))?;
        stored.known += count.saturating_sub(put);
        self.run(&format!("TRUNCATE {name}")).await
    }

    async fn copy(
        &self,
        into: &str,
        copied: &Copied,
        rows: Range<usize>,
        stored: &mut Stored,
    ) -> Result<(), Failed> {
        let failed = |why| self.failed(&why);
        let statement = format!("COPY {into} FROM STDIN (FORMAT binary)");
        let sink: CopyInSink<Bytes> = self.client.copy_in(&statement).await.map_err(failed)?;
        let mut sink = std::pin::pin!(sink);
        for part in copied.parts(rows) {
            stored.bytes += part.len() as u64;
            sink.send(part).await.map_err(failed)?;
        }
        sink.finish().await.map_err(failed)?;
        Ok(())
    }

    async fn run(&self, sql: &str) -> Result<(), Failed> {
        self.client.batch_execute(sql).await.map_err(|why| self.failed(&why))
    }

    async fn roll_back(&self) -> Result<(), Trouble> {
        session::run(&self.client, &self.peer(), "ROLLBACK").await
    }

    fn failed(&self, error: &tokio_postgres::Error) -> Failed {
        failure::storing(&self.peer(), error)
    }
}

fn own_sheet(schema: &str, table: &own::Table, rows: Copied) -> Sheet {
    let (name, columns) = (table.name, table.names());
    let stage = format!("pg_temp.flowlog_{name}");
    let detour = Detour {
        make: format!(
            "CREATE TEMPORARY TABLE IF NOT EXISTS flowlog_{name} (LIKE {schema}.{name}) \
             ON COMMIT DROP"
        ),
        into: format!("{stage} ({columns})"),
        hand_on: format!(
            "INSERT INTO {schema}.{name} ({columns}) SELECT {columns} FROM {stage} \
             ON CONFLICT DO NOTHING"
        ),
        name: stage,
    };
    Sheet { rows, into: format!("{schema}.{name} ({columns})"), stage: Stage::IfKnown(detour) }
}
