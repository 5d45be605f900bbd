# sqlite3 in memory: inserts, indexes, joins, grouping, json, text.
# `sqlite.sh prepare SCALE` once, `sqlite.sh run SCALE` is measured.
set -euo pipefail

if [ "$1" = prepare ]; then
    rows=$(awk -v scale="$2" 'BEGIN { printf "%d", 60000 * scale + 100 }')
    cat >work.sql <<SQL
create table person (id integer primary key, name text, town text, born integer, notes text);
with recursive n(i) as (select 1 union all select i + 1 from n where i < $rows)
insert into person
select i, printf('name%05d', (i * 7919) % 60013), 'town' || (i % 211), 1900 + (i * 31) % 120,
       printf('%.*c', i % 90, 'x') from n;
create index by_name on person (name);
create index by_town on person (town, born);
create table friend (a integer, b integer, since text, primary key (a, b)) without rowid;
insert or ignore into friend
select id, (id * 13) % $rows + 1, date('2000-01-01', '+' || (id % 5000) || ' days') from person;
select town, count(*), min(born), max(name) from person group by town order by 2 desc, 1 limit 3;
select p.town, count(distinct q.town) from person p join friend f on f.a = p.id
  join person q on q.id = f.b group by p.town order by 2 desc, 1 limit 3;
select sum(rank) from (select rank() over (partition by town order by born, id) as rank from person);
select sum(length(names)) from (select group_concat(name, '/') as names from person group by born);
select count(*) from person where name like '%77%' and notes like '%xxxx%';
select sum(json_extract(j, '$.x[2]')) from
  (select json_object('x', json_array(id, id * 2, id * 3), 'n', name) as j from person);
select sum(length(upper(name) || replace(notes, 'xx', 'yz'))) from person, (select 1 union all select 2);
update person set notes = notes || name where id % 3 = 0;
delete from person where id % 7 = 0;
select count(*), sum(length(notes)) from person;
SQL
    exit
fi
exec sqlite3 -init /dev/null -batch :memory: ".read work.sql"
