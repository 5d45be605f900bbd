cat >workload.sql <<'SQL'
pragma journal_mode = wal;
create table person (id integer primary key, name text, town text, born integer, notes text);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 60000)
insert into person
select i, printf('name%05d', (i * 7919) % 60013), 'town' || (i % 211), 1900 + (i * 31) % 120,
       hex(printf('%.*c', i % 60, 'x')) from n;
create index by_name on person (name);
create index by_town on person (town, born);
create table friend (a integer, b integer, since text, primary key (a, b)) without rowid;
insert or ignore into friend
select id, (id * 13) % 60000 + 1, date('2000-01-01', '+' || (id % 5000) || ' days') from person;
analyze;

select town, count(*), min(born), max(name) from person group by town order by 2 desc, 1 limit 5;
select p.town, count(distinct q.town) from person p join friend f on f.a = p.id
  join person q on q.id = f.b group by p.town order by 2 desc, 1 limit 5;
select sum(rank) from (select rank() over (partition by town order by born, id) as rank from person);
select sum(length(names)) from (select group_concat(name, '/') as names from person group by born);
select count(*) from person where name like '%77%' and notes like '%58%';
select json_group_array(json_object('n', name, 'b', born)) from (select * from person where id < 20);
select sum(json_extract(j, '$.x[2]')) from
  (select json_object('x', json_array(id, id * 2, id * 3)) as j from person);

begin;
update person set notes = notes || notes || name where id % 3 = 0;
delete from person where id % 7 = 0;
savepoint s;
delete from person;
rollback to s;
commit;
select count(*), sum(length(notes)) from person;
vacuum;
pragma integrity_check;
SQL
sqlite3 test.db <workload.sql
sqlite3 test.db .dump >dump.sql
cksum <dump.sql
sqlite3 again.db <dump.sql
sqlite3 again.db .dump | cmp - dump.sql && echo "dump and reload: the same"
