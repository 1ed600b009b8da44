-- The roles and databases of the compose file, made when the database volume is new.
CREATE ROLE meed LOGIN PASSWORD 'meed';
CREATE DATABASE meed OWNER meed;
CREATE ROLE temporal LOGIN CREATEDB PASSWORD 'temporal';
